"""Ask the index for a wheel of every pin, and for a pin of all that it needs, on each machine that is promised."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = Path(__file__).parent.parent / "requirements.txt"

OLDEST_GLIBC, OLDEST_TAG = 28, 17  # 2.28; and 2.17, from which on wheels are tagged with it
LINUX = {
    machine: [f"manylinux_2_{minor}_{machine}" for minor in range(OLDEST_TAG, OLDEST_GLIBC + 1)]
    + [f"manylinux2014_{machine}"]
    for machine in ("x86_64", "aarch64")
}
MACOS = {machine: [f"macosx_14_0_{machine}"] for machine in ("arm64", "x86_64")}

# As README promises them, and deploy/check_machine.py refuses others.
PROMISED = [
    (python, system, machine, tags)
    for system, machines, pythons in (("linux", LINUX, range(11, 15)), ("darwin", MACOS, range(11, 14)))
    for python in (f"3.{minor}" for minor in pythons)
    for machine, tags in machines.items()
]


def main() -> None:
    """Print a line for each machine, and exit 1 where something is missing."""
    missing = 0
    for python, system, machine, tags in PROMISED:
        environment = {"python_version": python, "sys_platform": system, "platform_machine": machine}
        problems = problems_on(environment, tags)
        print(f"Python {python} on {system} {machine}: {'; '.join(problems) or 'a wheel of everything'}")
        missing += len(problems)
    sys.exit(1 if missing else 0)


def problems_on(environment: dict[str, str], tags: list[str]) -> list[str]:
    """Return what is missing on a machine.

    Args:
        environment: the values of markers that differ between the promised machines.
        tags: platforms that its wheels may be for.
    """
    full = {
        **environment,
        "python_full_version": f"{environment['python_version']}.0",
        "platform_system": environment["sys_platform"].capitalize(),
    }
    pins = [Requirement(line) for line in PINS.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    wanted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(full)]
    report = ask(wanted, python=environment["python_version"], tags=tags)
    if isinstance(report, str):
        return [report]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in wanted}
    return [
        f"{wheel['metadata']['name']} needs {need}, which is not pinned so"
        for wheel in report["install"]
        for need in map(Requirement, wheel["metadata"].get("requires_dist", []))
        if (need.marker is None or need.marker.evaluate({**full, "extra": ""}))
        and not need.specifier.contains(pinned.get(canonicalize_name(need.name), "0"), prereleases=True)
    ]


def ask(pins: list[Requirement], *, python: str, tags: list[str]) -> Any:  # noqa: ANN401 (it is JSON)
    """Return pip's report of what it would install, or its last word on why it cannot."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", f"--target={directory}"]
        platforms = [f"--platform={tag}" for tag in tags]
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            *options,
            *platforms,
            f"--python-version={python}",
        ]
        asked = subprocess.run(
            [*command, f"--report={report}", *(f"{pin.name}{pin.specifier}" for pin in pins)],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode:
            return asked.stderr.strip().splitlines()[-1]
        return json.loads(report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
