"""What can be installed where: refused in one line before pip runs."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import PROJECT

LINUX = {
    "version": (3, 11),
    "implementation": "cpython",
    "system": "Linux",
    "machine": "x86_64",
    "libc": ("glibc", "2.36"),
}
MACOS = {**LINUX, "system": "Darwin", "machine": "arm64", "libc": ("", "")}


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (LINUX, ""),
        ({**LINUX, "version": (3, 14), "machine": "aarch64", "libc": ("glibc", "2.28")}, ""),
        ({**MACOS, "version": (3, 13)}, ""),
        ({**LINUX, "version": (3, 10)}, "CPython 3.11 to 3.14 is needed, and this is cpython 3.10"),
        ({**LINUX, "version": (3, 15)}, "CPython 3.11 to 3.14 is needed, and this is cpython 3.15"),
        ({**MACOS, "version": (3, 14)}, "CPython 3.11 to 3.13 is needed, and this is cpython 3.14"),
        ({**LINUX, "implementation": "pypy"}, "and this is pypy 3.11"),
        ({**LINUX, "implementation": "free-threaded cpython"}, "and this is free-threaded cpython 3.11"),
        ({**LINUX, "libc": ("", "")}, "glibc 2.28 or newer is needed, and this is musl or another"),
        ({**LINUX, "libc": ("musl", "1.2.5")}, "glibc 2.28 or newer is needed, and this is musl 1.2.5"),
        ({**LINUX, "libc": ("glibc", "2.17")}, "glibc 2.28 or newer is needed, and this is glibc 2.17"),
        ({**LINUX, "machine": "riscv64"}, "and this is riscv64"),
        ({**LINUX, "machine": "32 bits"}, "and this is 32 bits"),
        ({**LINUX, "system": "Windows"}, "Linux or macOS is needed, and this is Windows"),
    ],
)
def test_a_machine_without_wheels_is_refused_in_one_line(machine: dict[str, Any], says: str) -> None:
    refusal = runpy.run_path(str(PROJECT / "deploy" / "check_machine.py"))["refusal"](**machine)
    assert "\n" not in refusal
    assert says in refusal if says else refusal == ""


@pytest.mark.parametrize(("name", "is_good"), [("a b,c%2F é 'd'", True), *((f"a{each}b", False) for each in '$"`\\\n')])
def test_a_path_that_a_shell_takes_apart_is_refused_in_one_line(tmp_path: Path, name: str, *, is_good: bool) -> None:
    (tmp_path / name).mkdir()
    program = [sys.executable, str(PROJECT / "deploy" / "check_machine.py")]
    checked = subprocess.run(program, cwd=tmp_path / name, capture_output=True, text=True, check=False)
    assert (checked.returncode == 0) is is_good
    assert len(checked.stderr.splitlines()) == (0 if is_good else 1)


def test_make_refuses_before_it_makes_anything(tmp_path: Path) -> None:
    """With a Python that says of itself that it is too new."""
    for name in ("Makefile", "deploy", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (shutil.copytree if (PROJECT / name).is_dir() else shutil.copyfile)(PROJECT / name, tmp_path / name)
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 15, 0, 'final', 0)")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec python3 "$@"\n')
    python.chmod(0o755)
    made = subprocess.run(
        ["make", "--directory", tmp_path, "demo", f"PYTHON={python}"],
        env={**os.environ, "MAKEFLAGS": "-j8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    lines = [line for line in made.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert lines[0].startswith("CPython 3.11 to 3.14 is needed, and this is cpython 3.15: make PYTHON=")
    assert not (tmp_path / ".venv").exists()
