"""Command blocks of a page: what is typed, and what is printed then."""

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(console|bash)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SHELL_PROMPT = "$ "
PSQL_PROMPT = "challenge_db=# "
# What these do is done in containers: tests/docker does it.
ELSEWHERE = re.compile(r"\b(docker|kubectl|helm) ")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with what the page says that it prints.

    Attributes:
        page: where it stands.
        line: for the shell; a whole block, where that has no prompts.
        statements: typed at psql's prompt, where the command opens one.
        printed: on the standard output, without the prompts; None where the page does not say.
    """

    page: Path
    line: str
    statements: str = ""
    printed: str | None = None

    @property
    def is_for_containers(self) -> bool:
        """Whether it needs a Docker engine or a cluster."""
        return ELSEWHERE.search(self.line) is not None


def commands_in(page: Path) -> list[Command]:
    """Return the commands of a page's blocks, in their order."""
    return [
        command
        for language, block in BLOCK.findall(page.read_text())
        for command in (_typed_in(page, block) if language == "console" else [Command(page=page, line=block)])
    ]


def _typed_in(page: Path, block: str) -> list[Command]:
    pieces = re.split(rf"^{re.escape(SHELL_PROMPT)}", block, flags=re.MULTILINE)[1:]
    return [_command_of(page, *piece.split("\n", 1)) for piece in pieces]


def _command_of(page: Path, line: str, rest: str) -> Command:
    typed = [text.removeprefix(PSQL_PROMPT) for text in rest.splitlines() if text.startswith(PSQL_PROMPT)]
    printed = [text for text in rest.splitlines() if not text.startswith(PSQL_PROMPT)]
    return Command(page=page, line=line, statements="\n".join(typed), printed="\n".join(printed))


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
