"""Each statement in sql/queries/ is asked for, and only by the owner of its folder."""

import re
from functools import cache
from pathlib import Path

import pytest

from sql import SQL_DIR

PROJECT = SQL_DIR.parent

# Who may name a folder's statements: files, and folders with all that is in them.
OWNERS = {
    "alerts": {"coin_pipeline/alerts.py"},
    "assets": {"coin_pipeline/defs", "coin_pipeline/resources.py"},
    "budget": {"coin_pipeline/coingecko", "coin_pipeline/lookups/queue.py"},
    "catalog": {"coin_pipeline/lookups/catalog.py"},
    "checks": {"coin_pipeline/defs"},
    "credit": {"coin_pipeline/coingecko"},
    "lookups": {"coin_pipeline", "stack/cli.py"},
    "marts": {"coin_pipeline/defs", "stack/demo.py"},
    "operations": {"coin_pipeline/defs", "stack"},
    "receiver": {"receiver"},
    "sensor": {"coin_pipeline/defs/enrichment"},
}


@cache
def users() -> dict[str, set[Path]]:
    """Return each statement's users: the files of the programs that name it."""
    found: dict[str, set[Path]] = {
        f"{path.parent.name}/{path.stem}": set() for path in (SQL_DIR / "queries").rglob("*.sql")
    }
    for package in ("coin_pipeline", "receiver", "stack"):
        for path in (PROJECT / package).rglob("*.py"):
            for name in re.findall(r'"(\w+/\w+)"', path.read_text()):
                if name in found:
                    found[name].add(path.relative_to(PROJECT))
    return found


def queries_of(package: str) -> list[str]:
    """Return the statements that a package names."""
    return sorted(name for name, paths in users().items() if any(path.parts[0] == package for path in paths))


def test_each_folder_has_an_owner() -> None:
    assert {path.name for path in (SQL_DIR / "queries").iterdir()} == OWNERS.keys()


@pytest.mark.parametrize("name", sorted(users()))
def test_each_statement_is_used_and_only_by_its_owner(name: str) -> None:
    owners = {Path(owner) for owner in OWNERS[name.split("/", maxsplit=1)[0]]}
    assert users()[name], "nobody asks for it"
    strangers = {path for path in users()[name] if owners.isdisjoint({path, *path.parents})}
    assert not strangers
