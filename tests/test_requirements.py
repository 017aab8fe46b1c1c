"""The pins are those of what pyproject.toml asks for."""

import re
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement

from tests.compose.project import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("pins", "wanted"),
    [
        ("requirements.txt", METADATA["dependencies"]),
        ("requirements-dev.txt", [*METADATA["dependencies"], *chain(*METADATA["optional-dependencies"].values())]),
    ],
)
def test_every_direct_dependency_is_pinned_within_its_range(pins: str, wanted: list[str]) -> None:
    lines = [line for line in (PROJECT / pins).read_text().splitlines() if line and not line.startswith("#")]
    pinned = {normal(pin.name): next(iter(pin.specifier)).version for pin in map(Requirement, lines)}
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement
