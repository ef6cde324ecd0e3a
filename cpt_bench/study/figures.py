"""The study's figures as SVG, drawn with Matplotlib; the same points give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from cpt_bench.errors import CptBenchError
from cpt_bench.study import laws, pareto
from cpt_bench.study.evidence import among, by_seed
from cpt_bench.study.points import Points

TINTS: Final = (
    "#2f6fa8", "#b3443c", "#2f8f6b", "#d68a2e", "#6b5fb3", "#3aa6b0", "#c766a5", "#7a5a3a",
    "#8a8f2a", "#2b2b2b", "#e0b354",
)  # fmt: skip
GREY: Final = "#7f7f7f"
"""The colour of methods beyond the list of colours."""
PARTS: Final = {"format": "#e0b354", "mode": "#7fa6c9", "content": "#7a3b46"}
LAWS: Final = (
    ("kl_new", "all", "first", "KL on the new task's prompts"),
    ("kl_new", "rewarded", "first", "KL on the new task's prompts"),
    ("kl_new", "all", "all", "KL on the new task's prompts"),
    ("kl_general", "all", "all", "KL on general prompts"),
    ("varied", "rewarded", "all", "prompts with reward variance"),
    ("step", "rewarded", "all", "step²"),
    ("push", "rewarded", "all", "share with reward variance × step²"),
)
"""Predictors: the quantity, the methods, the stages, and a description."""
DRAWN: Final = (0, 2, 3, 5, 6)
"""The predictors that are drawn."""


def plot() -> Any:
    """Matplotlib's pyplot, configured to draw without a display and identically everywhere."""
    try:
        import matplotlib
    except ImportError:
        raise CptBenchError(
            "drawing the study needs Matplotlib, not installed here",
            todo="Install it with: pip install 'cptbench[study]'",
        ) from None
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcdefaults()
    plt.rcParams.update({
        "svg.hashsalt": "cptbench",  # else ids differ at each drawing
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
        "legend.fontsize": 8,
    })  # fmt: skip
    return plt


def draw(points: Points, folder: Path) -> dict[str, str]:
    """Draw every figure that has data.

    Returns:
        Figure name to its file's name in ``folder``; figures without data are left out.
    """
    plt = plot()
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for name, figure in _figures(plt, points):
        if figure is None:
            continue
        file = folder / f"{name}.svg"
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "cptbench study"})
        plt.close(figure)
        out[name] = file.name
    for file in folder.glob("*.svg"):
        if file.name not in out.values():
            file.unlink()
    return out


def _figures(plt: Any, points: Points) -> Iterator[tuple[str, Any]]:
    label = "general capability, points"
    yield "learning-forgetting", _learning(plt, points, "FM", "forgetting (FM), points")
    yield "learning-general", _learning(plt, points, "GeneralDelta", label)
    yield "kinds", _kinds(plt, points)
    yield "laws", _laws(plt, points)
    yield "orders", _orders(plt, points)


class Look(NamedTuple):
    """A method's colour and marker, the same in all figures.

    Attributes:
        colour: Its colour; the two families use the same colours.
        marker: Shows the family if both are drawn: a triangle for rewarded methods, else a dot.
    """

    colour: str
    marker: str


def looks(points: Points) -> dict[str, Look]:
    """Method to its look: colours by the study's order, then by that of the tables."""
    found = {}
    for rewarded in (True, False):
        family = points.family(rewarded)
        ordered = [m for m in points.about.colours if m in family]
        ordered += [m for m in family if m not in ordered]
        # The two families' baselines are in the same panel and must differ in colour.
        tints = TINTS if rewarded else (TINTS[1], TINTS[0], *TINTS[2:])
        for method, tint in zip_longest(ordered, tints[: len(ordered)], fillvalue=GREY):
            found[method] = Look(tint, "^" if rewarded else "o")
    return found


def _learning(plt: Any, points: Points, key: str, label: str) -> Any:
    """Learning against forgetting: runs as dots, and each method's curve through them.

    One column per family; in each, the other family's baseline is a dashed line. The large panels
    have the runs that learned something and did not collapse; the small ones below have all runs,
    with the large panels' part of them framed.
    """
    found = {}
    for method in points.methods():
        mine = [p for p in points.used if p.method == method and p.order == points.suite.sequence]
        if settings := pareto.settings(mine, key):
            found[method] = settings
    if not found:
        return None
    figure, grid = plt.subplots(
        2, 2, figsize=(10.4, 9.0), sharex="row", sharey="row", height_ratios=(3.2, 1)
    )
    left, (learned, lost) = -1.0, points.about.corner
    families, titles = [points.family(False), points.family(True)], points.about.titles
    panels = ((titles[0], *families), (titles[1], *families[::-1]))
    for (large, small), (title, family, others) in zip(grid.T, panels, strict=True):
        own = {m: s for m, s in found.items() if m in family}
        other = {m: s for m, s in found.items() if m in others[:1]}
        for axes, size in ((large, 18), (small, 6)):
            _panel(axes, looks(points), own, other, size)
        top = 1.08 * max(3.0, _highest(found))
        large.set(xlim=(left, learned), ylim=(-lost, top), title=title)
        corner, width, height = (left, -lost), learned - left, top + lost
        small.add_patch(plt.Rectangle(corner, width, height, fill=False, color="#777777"))
        small.set_title("all runs, the collapsed ones too", fontsize=8)
        small.set_xlabel("learned: accuracy just after each task, above the base, points")
    grid[0][0].set_ylabel(label)
    grid[1][0].set_ylabel("points")
    handles = {
        name: handle
        for axes in grid[0]
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), title="method (runs)", ncols=5,
                  loc="outside lower center")  # fmt: skip
    return figure


Settings = Sequence[pareto.Setting]


def _panel(
    axes: Any, shown: dict[str, Look], own: Mapping[str, Settings],
    other: Mapping[str, Settings], size: float,
) -> None:  # fmt: skip
    """One family's runs and curves; the other's baseline is dashed."""
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    for method, settings in other.items():
        edge = _edge(settings)
        label = f"{method}, in the other panel"
        axes.plot(edge[:, 0], edge[:, 1], "--", color="#999999", linewidth=1.4, label=label)
    for method, settings in own.items():
        look = shown[method]
        dots, edge = np.vstack([s.runs for s in settings]), _edge(settings)
        axes.scatter(dots[:, 0], dots[:, 1], s=size, color=look.colour, marker=look.marker,
                     alpha=0.5, linewidths=0)  # fmt: skip
        axes.plot(edge[:, 0], edge[:, 1], color=look.colour, linewidth=1.6 if size > 10 else 0.9,
                  label=f"{method} ({len(dots)})")  # fmt: skip


def _highest(found: Mapping[str, Settings]) -> float:
    return max(float(s.runs[:, 1].max()) for settings in found.values() for s in settings)


def _edge(settings: Settings) -> pareto.Array:
    return pareto.curve(np.array([s.runs.mean(axis=0) for s in settings]))


def _kinds(plt: Any, points: Points) -> Any:
    """Each method's losses by kind, at its recipe's learning rate."""
    rows = []
    for method in points.methods():
        found = points.of(method)
        parts = [by_seed(found, f"Lost_{kind}") for kind in PARTS]
        common = set(parts[0]).intersection(*parts[1:])
        if common:
            rows.append((method, [float(np.mean([p[s] for s in common])) for p in parts]))
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(7.2, 0.8 + 0.32 * len(rows)))
    left = np.zeros(len(rows))
    for i, (kind, tint) in enumerate(PARTS.items()):
        widths = np.array([parts[i] for _, parts in rows])
        axes.barh([m for m, _ in rows], widths, left=left, color=tint, label=kind, height=0.7)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("samples right at the peak and wrong at the end, %")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _laws(plt: Any, points: Points) -> Any:
    """Claimed predictors of forgetting against the loss of general capability, with fits."""
    asked, shown = [LAWS[i] for i in DRAWN], looks(points)
    found = [(laws.fit(among(points, law[1]), law[0], "general", law[2] == "first"), law)
             for law in asked]  # fmt: skip
    fits = [(law, *words[1:]) for law, words in found if law is not None]
    if not fits:
        return None
    columns = min(3, len(fits))
    rows = -(-len(fits) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.9 * columns, 0.9 + 2.7 * rows), sharey=True, squeeze=False
    )
    for axes in grid.flat[len(fits) :]:
        axes.set_axis_off()
    for axes, (law, who, stages, label) in zip(grid.flat, fits, strict=False):
        runs, most = among(points, who), float(law.points[:, 0].max())
        unit = 10.0 ** np.floor(np.log10(most)) if 0 < most < 0.01 else 1.0
        for method in points.methods():
            mine = [p for p in runs if p.method == method]
            dots = laws.table(mine, (law.x, law.y), stages == "first")
            if dots:
                xy = np.vstack(dots)
                look = shown[method]
                axes.scatter(xy[:, 0] / unit, xy[:, 1], s=9, color=look.colour, linewidths=0,
                             marker=look.marker, label=method)  # fmt: skip
        xs = np.linspace(law.points[:, 0].min(), law.points[:, 0].max(), 60)
        fitted = np.vander(xs, 3, increasing=True) @ law.coefficients
        axes.plot(xs / unit, fitted, color="#333333")
        axes.set_xlabel(label if unit == 1 else f"{label},\nin {unit:.0e}")
        low, high = law.interval.low, law.interval.high
        when = "after the first task" if stages == "first" else "after every task"
        axes.set_title(f"{when}\nR² {law.r2:.2f} [{low:.2f}, {high:.2f}]", fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("general capability, points")
    handles = {
        name: handle
        for axes in grid.flat
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)
    return figure


def _orders(plt: Any, points: Points) -> Any:
    """Forgetting in each task order, for the methods that were run in several."""
    orders, shown = points.orders(), looks(points)
    methods = [m for m in points.methods() if sum(bool(points.of(m, order=o)) for o in orders) > 1]
    if not methods:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 2.8))
    for i, method in enumerate(methods):
        look = shown[method]
        for k, order in enumerate(orders):
            values = [*by_seed(points.of(method, order=order), "FM").values()]
            if values:
                x = k + 0.14 * (i - (len(methods) - 1) / 2)
                axes.scatter([x] * len(values), values, s=16, color=look.colour,
                             marker=look.marker, label=method if k == 0 else None)  # fmt: skip
                axes.plot([x - 0.05, x + 0.05], [np.mean(values)] * 2, color=look.colour)
    axes.set_xticks(range(len(orders)), [order_name(points, o) for o in orders])
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_ylabel("forgetting (FM), points")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def order_name(points: Points, order: Sequence[str]) -> str:
    """``A`` for the suite's own order, then one letter for each further order."""
    return chr(65 + points.orders().index(tuple(order)) % 26)
