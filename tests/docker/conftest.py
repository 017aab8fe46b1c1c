"""The engine, the images, and a stack that runs."""

import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

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
    """The images of this checkout, built for this run alone."""
    project = Project(name=random_name(), directory=tmp_path_factory.mktemp("docker") / "images")
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


def random_name() -> str:
    return f"coins-test-{secrets.token_hex(4)}"
