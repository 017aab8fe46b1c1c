"""A directory for what the services need only while they run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from stack.environment import LONGEST_TMPDIR

# It puts its own path into a configuration of Alembic's, in which `%` has a meaning (dagster-postgres 0.29, Alembic
# 1.20): from a directory with one, none of Dagster's programs starts.
SENSITIVE_PACKAGE = "dagster_postgres"


@contextmanager
def scratch_directory() -> Iterator[dict[str, str]]:
    """Yield the variables by which services use a temporary directory, which goes with all that they leave in it.

    It also holds a copy of what cannot bear the place where it is installed.
    """
    place = tempfile.gettempdir()
    if "%" in place or len(os.fsencode(place) + b"/coins-12345678") > LONGEST_TMPDIR:
        place = "/tmp"  # noqa: S108 (a directory with a name of its own)
    with tempfile.TemporaryDirectory(prefix="coins-", dir=place, ignore_cleanup_errors=True) as directory:
        variables = {"TMPDIR": directory}
        package = find_spec(SENSITIVE_PACKAGE)
        if package and package.origin and "%" in package.origin:
            shutil.copytree(Path(package.origin).parent, Path(directory, "packages", SENSITIVE_PACKAGE))
            variables["PYTHONPATH"] = str(Path(directory, "packages"))
        yield variables
