"""Say in one line why this project cannot be installed here, before anything is. Any Python can run this."""
# mypy: allow-untyped-defs, allow-untyped-calls

import os
import platform
import sys
import sysconfig

OLDEST = (3, 11)
NEWEST = {"Linux": (3, 14), "Darwin": (3, 13)}  # for newer ones, packages have no wheels yet: make lock asks
MACHINES = ("x86_64", "aarch64", "arm64")
OLDEST_GLIBC = (2, 28)  # of Debian 10, Ubuntu 20.04 and RHEL 8
NOT_IN_PATHS = '$"`\\\n'  # pip's scripts and PostgreSQL's initdb give paths to a shell, between double quotes


def refusal(version, implementation, system, machine, libc):
    """Return what is wrong with a machine in one line, or nothing.

    Args:
        version: Python's, such as `(3, 11)`.
        implementation: of Python, such as `cpython`.
        system: as `platform.system` has it.
        machine: as `platform.machine` has it.
        libc: as `platform.libc_ver` has it.
    """
    if system not in NEWEST:
        return "Linux or macOS is needed, and this is {}".format(system or "neither")
    newest = NEWEST[system]
    if not OLDEST <= tuple(version[:2]) <= newest or implementation != "cpython":
        return "CPython {}.{} to {}.{} is needed, and this is {} {}.{}: make PYTHON=python3.13 ...".format(
            *(OLDEST + newest + (implementation,) + tuple(version[:2]))
        )
    if machine not in MACHINES:
        return "A processor of {} is needed, and this is {}".format(", ".join(MACHINES), machine or "unknown")
    name, number = libc
    if system == "Linux" and (name != "glibc" or tuple(map(int, number.split(".")[:2])) < OLDEST_GLIBC):
        return "glibc {}.{} or newer is needed, and this is {} {}".format(
            *(OLDEST_GLIBC + (name or "musl or another", number))
        )
    return ""


def main():
    """Exit with the line, where there is one."""
    implementation = platform.python_implementation().lower()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        implementation = "free-threaded " + implementation
    machine = platform.machine() if sys.maxsize > 2**32 else "32 bits"
    problem = refusal(sys.version_info, implementation, platform.system(), machine, platform.libc_ver())
    if not problem:
        try:
            __import__("ensurepip"), __import__("venv")
        except ImportError:
            problem = "Python's venv is missing; on Debian and Ubuntu: apt-get install python3-venv"
    if not problem and set(NOT_IN_PATHS) & set(os.getcwd()):  # noqa: PTH109 (any Python can run this)
        problem = (
            'The path of this checkout holds one of $ " ` \\ or a line end, which programs here take for more: move it'
        )
    sys.exit(problem or 0)


if __name__ == "__main__":
    main()
