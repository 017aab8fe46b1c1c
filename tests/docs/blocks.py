"""Command blocks of a page: what is typed at a prompt, and what is printed then."""

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SHELL_PROMPT = "$ "
PSQL_PROMPT = "challenge_db=# "


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with what the page says that it prints.

    Attributes:
        line: for the shell.
        statements: typed at psql's prompt, where the command opens one.
        printed: on the standard output, without the prompts.
    """

    line: str
    statements: str
    printed: str


def commands_in(page: Path) -> list[Command]:
    """Return the commands of a page's console blocks, in their order."""
    return [command for block in BLOCK.findall(page.read_text()) for command in _commands_of(block)]


def _commands_of(block: str) -> list[Command]:
    pieces = re.split(rf"^{re.escape(SHELL_PROMPT)}", block, flags=re.MULTILINE)[1:]
    return [_command_of(*piece.split("\n", 1)) for piece in pieces]


def _command_of(line: str, rest: str) -> Command:
    typed = [text.removeprefix(PSQL_PROMPT) for text in rest.splitlines() if text.startswith(PSQL_PROMPT)]
    printed = [text for text in rest.splitlines() if not text.startswith(PSQL_PROMPT)]
    return Command(line=line, statements="\n".join(typed), printed="\n".join(printed))


def normalised(text: str, *, numbers: bool) -> list[str]:
    """Return the lines that matter, in a form in which what may differ from run to run is alike.

    Args:
        text: as printed.
        numbers: whether all numbers may differ, and so the width of columns; else only seconds.
    """
    text = re.sub(r"after \d+ s", "after N s", text)
    if numbers:
        text = re.sub(r"\d+(\.\d+)?", "N", text)
        text = re.sub(r"([━─]+)|\s*\n|[ \t]+", lambda run: "━" if run[1] else run[0][-1], text)
    return [line.strip() if numbers else line.rstrip() for line in text.splitlines() if line.strip()]
