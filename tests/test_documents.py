"""What the documents point at is there: files, make targets, tables and columns."""

import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from stack.cli import coins
from tests.compose.project import PROJECT
from tests.docs.blocks import commands_in

DOCUMENTS = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), *(PROJECT / "deploy").rglob("*.md")]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_to_files_and_make_has_the_targets(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (document.parent / link).exists(), link
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= TARGETS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_commands_can_be_pasted_into_any_shell(document: Path) -> None:
    for command in commands_in(document):
        subprocess.run(["sh", "-nc", command.line], check=True, capture_output=True)
        assert " #" not in command.line, "zsh takes a comment at a prompt for arguments"
        assert "$'" not in command.line, "neither dash nor fish knows it"


def test_coins_has_the_commands_and_options_that_documents_name() -> None:
    named = [
        each
        for document in DOCUMENTS
        for each in re.findall(r"\bcoins ([a-z]+)((?: --[a-z-]+)*)", document.read_text())
    ]
    named = [(name, options.split()) for name, options in named if name in coins.commands]
    assert len(named) > 10
    for name, options in named:
        known = {option for parameter in coins.commands[name].params for option in parameter.opts} | {"--help"}
        assert set(options) <= known, name


def test_the_statements_of_the_runbook_and_of_scaling_run(connection: psycopg.Connection) -> None:
    texts = [(PROJECT / "docs" / name).read_text() for name in ("runbook.md", "scaling.md")]
    inline = [each for text in texts for each in re.findall(r"`((?:SELECT|UPDATE|DELETE|TABLE) [^`]+)`", text)]
    quoted = [each for text in texts for each in re.findall(r"-c '(TABLE \w+)'", text)]
    assert len(inline) >= 4
    for statement in (*inline, *quoted):
        connection.execute(statement.encode())
