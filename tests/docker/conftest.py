"""The engine, the images, and a stack that runs."""

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compose.project import PROJECT
from tests.docker.project import Project, removed_at_the_end

NewProject = Callable[[], Project]


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Whatever engine docker's command reaches; nothing is installed or started here."""
    try:
        subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        says = str(getattr(error, "stderr", "") or error).strip()
        pytest.exit(f"No Docker engine answers: start one, or name it with DOCKER_HOST ({says})", returncode=3)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The images of this checkout as `umask 077` makes it, built for this run alone."""
    directory = tmp_path_factory.mktemp("docker")
    project = Project(name=random_name(), directory=directory / "images", source=private_copy(directory / "checkout"))
    with removed_at_the_end(project):
        project.build()
        yield project


@pytest.fixture(scope="session")
def new_project(images: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewProject]:
    """Make projects that run these images; they are gone at the end."""
    with ExitStack() as projects:

        def new() -> Project:
            name = random_name()
            project = Project(name=name, directory=tmp_path_factory.mktemp("docker") / name, images=images.name)
            return projects.enter_context(removed_at_the_end(project))

        yield new


@pytest.fixture(scope="module")
def stack(new_project: NewProject) -> Iterator[Project]:
    """A stack with the stand-in, everything healthy; it stops with the module."""
    project = new_project()
    project.up()
    yield project
    project.down()


def private_copy(directory: Path) -> Path:
    """Copy this checkout to where nobody but its owner can read a file of it."""
    shutil.copytree(
        PROJECT, directory, ignore=shutil.ignore_patterns(".git", ".venv", ".coins", ".*_cache", "__pycache__")
    )
    for path in (directory, *directory.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    return directory


def random_name() -> str:
    return f"coins-test-{secrets.token_hex(4)}"
