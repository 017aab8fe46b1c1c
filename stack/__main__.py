"""The `coins` command, in an environment that nothing in the shell has spoiled."""

import os
import sys

from stack.environment import inherited

IS_UTF8 = sys.getfilesystemencoding() == "utf-8"


def main() -> None:
    """Run the command; an error that a user can mend is one line."""
    environment = inherited(os.environ)
    spoilt = {name for name, value in os.environ.items() if environment.get(name) != value}
    if any(name.startswith("PYTHON") for name in spoilt) or not (IS_UTF8 or "PYTHONUTF8" in os.environ):
        # This interpreter has gone by them already: begin again without.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    os.environ.clear()
    os.environ.update(environment)
    try:
        from stack.cli import run  # noqa: PLC0415 (libraries read the environment when they are imported)
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {error.name} is not installed, which coins needs: install coin-pipeline[all]")
    except ImportError as error:
        cure = "unset LD_LIBRARY_PATH" if "LD_LIBRARY_PATH" in os.environ else "install coin-pipeline[all] anew"
        sys.exit(f"Error: A library that coins needs cannot be loaded: {cure}; {' '.join(str(error).split())}")
    run()


if __name__ == "__main__":
    main()
