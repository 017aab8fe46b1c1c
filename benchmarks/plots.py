"""The two pictures in docs/: latency over load, and each drain over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.drain import Drain

STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "benchmarks",  # the same figures give the same file
}


def plot_latency(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Plot the 99th percentile of replies, in milliseconds, over replies a second, one curve a server."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
        axes.set(xlabel="requests a second", ylabel="99th percentile, ms", yscale="log", xlim=(0, None))
        axes.yaxis.set_major_formatter("{x:g}")
        figure.legend(loc="outside upper left", ncols=len(curves))
        _save(figure, path)


def plot_drains(drains: Sequence[Drain], path: Path) -> None:
    """Plot the calls of each drain over time, beside those that its limit allows."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        for axes, drain in zip(figure.subplots(1, len(drains), squeeze=False)[0], drains, strict=True):
            _plot_drain(axes, drain)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        _save(figure, path)


def _plot_drain(axes: Axes, drain: Drain) -> None:
    calls = len(drain.arrivals)
    bound: tuple[Sequence[float], Sequence[int]]
    if limit := drain.scenario.calls_per_minute:
        windows = range(int(drain.arrivals[-1] // 60) + 2)
        bound = [60 * window for window in windows], [min(limit * (window + 1), calls) for window in windows]
    else:
        bound = [0, drain.scenario.ideal_seconds(latency=drain.latency)], [1, calls]
    axes.plot(*bound, color="0.6", linestyle="--", drawstyle="steps-post" if limit else None, label="at most")
    axes.plot(drain.arrivals, range(1, calls + 1), label="made")
    axes.set(title=drain.scenario.title, xlabel="seconds", ylabel="calls", xlim=(0, drain.arrivals[-1]))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
