"""The wheel, built from what is committed and installed far from the checkout, in an environment of its own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import PROJECT

PACKAGES = ("coin_pipeline", "receiver", "sql", "stack")


def tracked_files() -> list[Path]:
    """Return what git knows of the checkout, new files that are to be committed included."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, text=True
    )
    return [Path(name) for name in listed.split("\0") if name and (PROJECT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel; it is built from a copy, since that leaves files behind."""
    source = tmp_path_factory.mktemp("source")
    for path in tracked_files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / path, source / path)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", "dist", "."], cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The wheel in a virtual environment, and an empty directory to work in."""

    programs: Path
    directory: Path

    def run(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel installed; what it requires is this environment's, whose own coin-pipeline stays out of sight."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
    )
    (site,) = (root / "venv" / "lib").glob("python*/site-packages")
    # A path in such a file is not searched for further ones, and so not for the checkout's.
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    for program in ("dagster-daemon", "dagster-webserver"):
        _, code = (Path(sys.executable).parent / program).read_text().split("\n", 1)
        (python.parent / program).write_text(f"#!{python}\n{code}")
        (python.parent / program).chmod(0o755)
    (directory := root / "empty").mkdir()
    return Installed(programs=python.parent, directory=directory)


def test_the_wheel_holds_what_is_in_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {str(path) for path in tracked_files() if path.parts[0] in PACKAGES}


def test_there_is_one_version(installed: Installed) -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nARG VERSION={version}\n" in (PROJECT / "Dockerfile").read_text()
    assert f"coin_pipeline-{version}-py3" in (PROJECT / "README.md").read_text()
    assert installed.run("coins", "--version").stdout == f"coins, version {version}\n"


def test_the_receiver_starts_as_far_as_its_settings(installed: Installed) -> None:
    result = installed.run("python", "-m", "receiver")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "DATABASE_URL" in result.stderr


def test_the_demo_prints_both_views_and_leaves_nothing(installed: Installed, tmp_path: Path) -> None:
    result = installed.run("coins", "demo", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "80/80" in result.stdout
    _, stats, names = re.split("exchange_coin_stats|exchanges_with_x", result.stdout)[:3]
    assert re.search(r"│ \w+ +│ \d+ +│ [\d.]+ +│", stats)
    assert re.search(r"│ \w*x\w* +│", names)
    assert list(tmp_path.iterdir()) == list(installed.directory.iterdir()) == []
