"""Packages that services import from elsewhere than where they are installed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# It puts its own path into a configuration of Alembic's, in which `%` has a meaning (dagster-postgres 0.29, Alembic
# 1.20): from a directory with one, none of Dagster's programs starts.
SENSITIVE_PACKAGE = "dagster_postgres"


@contextmanager
def importable_packages() -> Iterator[dict[str, str]]:
    """Yield the variables by which services find a copy of what cannot bear its place, while the block lasts."""
    package = find_spec(SENSITIVE_PACKAGE)
    if package is None or package.origin is None or "%" not in package.origin:
        yield {}
        return
    place = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="coins-packages-", dir="/tmp" if "%" in place else None) as directory:  # noqa: S108
        shutil.copytree(Path(package.origin).parent, Path(directory, SENSITIVE_PACKAGE))
        yield {"PYTHONPATH": directory}
