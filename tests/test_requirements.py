"""The pins are those of what pyproject.toml asks for."""

import re
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement

from tests.compose.project import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = METADATA["optional-dependencies"]
IMAGES = ("receiver", "standin", "pipeline")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines_of(pins: str) -> set[str]:
    return {line for line in (PROJECT / pins).read_text().splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize(
    ("pins", "wanted"),
    [
        *((f"requirements/{image}.txt", [*METADATA["dependencies"], *EXTRAS[image]]) for image in IMAGES),
        ("requirements.txt", [*METADATA["dependencies"], *chain(*(EXTRAS[each] for each in (*IMAGES, "stack")))]),
        ("requirements-dev.txt", [*METADATA["dependencies"], *chain(*EXTRAS.values())]),
    ],
)
def test_every_direct_dependency_is_pinned_within_its_range(pins: str, wanted: list[str]) -> None:
    pinned = {normal(pin.name): next(iter(pin.specifier)).version for pin in map(Requirement, lines_of(pins))}
    for requirement in (each for each in map(Requirement, wanted) if each.name != METADATA["name"]):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement


@pytest.mark.parametrize("image", IMAGES)
def test_the_images_and_the_machine_of_the_tests_have_the_same_pins(image: str) -> None:
    assert lines_of(f"requirements/{image}.txt") <= lines_of("requirements.txt") <= lines_of("requirements-dev.txt")
