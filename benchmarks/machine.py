"""What the figures were measured on and with."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg

from benchmarks.databases import running_postgres

CPU_INFO = Path("/proc/cpuinfo")  # Linux
LIBRARIES = ("Dagster", "Flask", "Granian", "gunicorn", "psycopg")


def describe_machine() -> str:
    """Return the machine's cores, processor, memory and kind of system."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB of memory, {platform.system()}"


def describe_versions() -> str:
    """Return the versions of what decides on speed."""
    with running_postgres() as postgres, psycopg.connect(postgres.url("postgres")) as connection:
        server = connection.info.parameter_status("server_version")
    libraries = [f"{name} {version(name)}" for name in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", f"PostgreSQL {server}", *libraries])


def _processor() -> str:
    """Return the processor's model, as far as the system tells."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
