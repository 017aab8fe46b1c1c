"""What the documents point at is there: files, make targets, tables and columns."""

import re
from pathlib import Path

import psycopg
import pytest

from tests.compose.project import PROJECT

DOCUMENTS = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), *(PROJECT / "deploy").rglob("*.md")]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_to_files_and_make_has_the_targets(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (document.parent / link).exists(), link
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= TARGETS


def test_the_statements_of_the_runbook_and_of_scaling_run(connection: psycopg.Connection) -> None:
    texts = [(PROJECT / "docs" / name).read_text() for name in ("runbook.md", "scaling.md")]
    inline = [each for text in texts for each in re.findall(r"`((?:SELECT|UPDATE|DELETE|TABLE) [^`]+)`", text)]
    blocks = [each for text in texts for each in re.findall(r"```sql\n(.+?)```", text, flags=re.DOTALL)]
    quoted = [each for text in texts for each in re.findall(r"-c '(TABLE \w+)'", text)]
    assert len(inline) >= 4
    for statement in (*inline, *blocks, *quoted):
        connection.execute(statement.encode())
