"""What the benchmarks hand over: rows of figures beside references, and the one table that they make."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- made by make bench: -->", "<!-- :made by make bench -->"
WIDTH = 160  # characters, where there is no terminal
HEADINGS = ("", "here", "reference", "", "ratio", "limit")


class Size(Enum):
    """How much to measure: all of it, or a rough look."""

    FULL = "full"
    QUICK = "quick"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a figure or a ratio should keep to.

    Attributes:
        text: the limit in words.
        is_met: whether it does.
        is_promise: missing it is a defect, not only slow: the benchmark fails.
    """

    text: str
    is_met: bool
    is_promise: bool = False

    def __str__(self) -> str:
        """Say whether it is met."""
        return self.text if self.is_met else f"**missed**: {self.text}"


def at_least(figure: float, least: float, *, goal: float | None = None) -> Limit:
    """Return the limit that a figure is at least so much; a goal is what it should be."""
    text = f"at least {least}"
    if goal is not None:
        text += f" (goal {goal}{'' if figure >= goal else ': not reached'})"
    return Limit(text=text, is_met=figure >= least)


def at_most(figure: float, most: float, *, unit: str = "", goal: float | None = None) -> Limit:
    """Return the limit that a figure is at most so much; a goal is what it should be."""
    text = f"at most {most:g}{unit and ' '}{unit}"
    if goal is not None:
        text += f" (goal {goal}{'' if figure <= goal else ': not reached'})"
    return Limit(text=text, is_met=figure <= most)


def none_of(count: float, *, is_promise: bool = False) -> Limit:
    """Return the limit that there is none of something."""
    return Limit(text="none", is_met=count == 0, is_promise=is_promise)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of this project, beside a reference that was measured in the same run where there is one.

    Attributes:
        what: was measured.
        figure: this project's.
        unit: of both figures.
        reference: the reference's name.
        reference_figure: the reference's.
        limits: what the figure or the ratio should keep to.
    """

    what: str
    figure: float
    unit: str
    reference: str = ""
    reference_figure: float | None = None
    limits: tuple[Limit, ...] = ()

    @property
    def ratio(self) -> float | None:
        """This project's figure divided by the reference's, where that can be."""
        return self.figure / self.reference_figure if self.reference_figure else None

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows, in Markdown."""
        reference = "" if self.reference_figure is None else f"{digits(self.reference_figure)} {self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        limits = "; ".join(map(str, self.limits))
        return (self.what, f"{digits(self.figure)} {self.unit}".strip(), self.reference, reference, ratio, limits)


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one benchmark measured.

    Attributes:
        title: its name.
        conditions: under which.
        rows: its figures.
        curves: points of curves to plot, by name.
    """

    title: str
    conditions: str
    rows: Sequence[Row]
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


def print_table(sections: Sequence[Section]) -> None:
    """Print the rows of all sections as one table, a missed limit in red."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    table = Table(*HEADINGS)
    for section in sections:
        table.add_section()
        table.add_row(section.title, style="bold")
        for row in section.rows:
            *figures, limits = row.cells
            is_met = all(limit.is_met for limit in row.limits)
            table.add_row(*figures, limits.replace("**", ""), style="" if is_met else "red")
    console.print(table)


def markdown_of(sections: Sequence[Section]) -> str:
    """Return the conditions of all sections, and their rows as one table."""
    conditions = [f"- {section.title}: {section.conditions}" for section in sections]
    table = [f"| {' | '.join(HEADINGS)} |", "|---|--:|---|--:|--:|---|"]
    for section in sections:
        table.append(f"| **{section.title}** | | | | | |")
        table += [f"| {' | '.join(row.cells)} |" for row in section.rows]
    return "\n".join([*conditions, "", *table])


def replace_generated_part(document: Path, text: str) -> None:
    """Write text between the document's two markers; all else stays as it is.

    Raises:
        ValueError: the document does not have both markers, once each and in order.
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"{document.name} does not have one pair of {BEGIN} and {END}")
    document.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


def broken_promises(sections: Sequence[Section]) -> list[str]:
    """Return the rows that show a defect, not only a slow machine."""
    rows = [row for section in sections for row in section.rows]
    return [row.what for row in rows if any(limit.is_promise and not limit.is_met for limit in row.limits)]


_started_at = time.monotonic()


def note(text: str) -> None:
    """Print what is measured now, and how long it has been going on."""
    minutes, seconds = divmod(int(time.monotonic() - _started_at), 60)
    print(f"{minutes}:{seconds:02}  {text}", flush=True)


def run_alone(measure: Callable[[Size], Section]) -> None:
    """Run one benchmark as a command of its own."""
    parser = argparse.ArgumentParser(description=sys.modules[measure.__module__].__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough look")
    section = measure(Size.QUICK if parser.parse_args().quick else Size.FULL)
    print(section.conditions)
    print_table([section])
    sys.exit(bool(broken_promises([section])))


def digits(figure: float) -> str:
    """Return three digits that matter, or all before the point, in groups of three."""
    if figure == round(figure) or abs(figure) >= 100:
        return f"{figure:,.0f}".replace(",", " ")
    return f"{figure:#.3g}"
