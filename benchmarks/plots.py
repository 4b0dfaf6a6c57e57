"""The results as pictures: a bar per peer, and the curves of how the cost grows. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.report import figures

OWN, OTHERS, FLOOR = "#1f5fa8", "#9aa3ab", "#d8dde1"
STYLE = {
    "svg.hashsalt": "bpxp",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def bars(title: str, unit: str, rows: list[Row], path: Path) -> None:
    """Draw the medians as bars, the range over the rounds as a line on each."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.values]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.6 + 0.28 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            colour = OWN if row.name.startswith("bpxp") else FLOOR if row.name.startswith("floor") else OTHERS
            axes.barh(place, row.median, color=colour)
            axes.plot([min(row.values), max(row.values)], [place, place], color="black", linewidth=1)
            axes.annotate(f" {figures(row.median)}", (max(row.values), place), va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.set_title(title, fontsize=9, loc="left")
        figure.savefig(path, metadata={"Date": None})


def growth(curves: dict[str, Any], path: Path) -> None:
    """Draw the curves of `benchmarks.scaling`, both axes logarithmic, the exponent beside each name."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 7), layout="constrained")
        for axes, (name, axis) in zip(figure.subplots(2, 2).flat, curves.items(), strict=False):
            for peer, costs in axis["curves"].items():
                points = [(size, cost) for size, cost in zip(axis["sizes"], costs, strict=True) if cost]
                if not points:
                    continue
                power = axis["exponents"][peer]
                label = peer if power is None else f"{peer}: {power:.2f}"
                axes.loglog(
                    *zip(*points, strict=True), "o-" if peer.startswith("bpxp") else "o--", markersize=3, label=label
                )
            axes.set_xticks(axis["sizes"], [str(size) for size in axis["sizes"]])
            axes.minorticks_off()
            axes.set_xlabel(f"{name} ({axis['what']})")
            axes.set_ylabel(axis["unit"])
            axes.legend(fontsize=7, frameon=False, title="exponent", title_fontsize=7)
        figure.savefig(path, metadata={"Date": None})
