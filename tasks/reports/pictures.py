"""Pictures for the Prefect UI: small PNGs that stand inside markdown as data URIs.

An image artifact with a data URI is not rendered by the UI; a markdown artifact is.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from policy.gates.scores import Score

INK, CANARY, STABLE, LIMIT = "#33415c", "#d1495b", "#2e7d6b", "#8d99ae"


def embed(png: bytes) -> str:
    """The markdown of a picture that carries its own data."""
    return f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})"


def learning_curves(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Loss and accuracy over steps, from the rows of curves.csv."""
    with figure(7.2, 2.6, columns=2) as (axes, finish):
        for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
            for split, color in (("train", STABLE), ("val", CANARY)):
                points = [
                    (float(row["step"]), float(row[name]))
                    for row in rows
                    if row["split"] == split and row[name] not in ("", None)
                ]
                if points:
                    axis.plot(
                        *zip(*points, strict=True), color=color, label=split, linewidth=1.4
                    )
            axis.set_xlabel("step")
            axis.set_ylabel(name)
            axis.legend(frameon=False, fontsize=8)
        axes[1].set_ylim(0, 1.02)
    return finish[0]


def family_bars(families: Mapping[str, Score], accuracy_min: float) -> str:
    """Accuracy per family with its limit."""
    with figure(7.2, 0.6 + 0.32 * len(families)) as ((axis,), finish):
        names = list(families)
        values = [families[name].accuracy for name in names]
        colors = [STABLE if value >= accuracy_min else CANARY for value in values]
        axis.barh(names, values, color=colors, height=0.62)
        for row, value in enumerate(values):
            inside = value > 0.15
            axis.text(
                value - 0.01 if inside else value + 0.01,
                row,
                f"{value:.3f}",
                va="center",
                ha="right" if inside else "left",
                color="white" if inside else INK,
                fontsize=8,
            )
        axis.axvline(accuracy_min, color=LIMIT, linestyle="--", linewidth=1)
        axis.set_xlim(0, 1.02)
        axis.invert_yaxis()
        axis.set_xlabel(f"accuracy (dashed: limit {accuracy_min})")
    return finish[0]


def ablation_dots(points: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """One panel per family: a dot for each seed of each ablation."""
    names = list(dict.fromkeys(name for name, _ in points))
    families = list(points[0][1])
    with figure(1.5 * len(families) + 1.6, 0.8 + 0.3 * len(names), len(families)) as (
        axes,
        finish,
    ):
        for axis, family in zip(axes, families, strict=True):
            for name, accuracies in points:
                axis.plot(accuracies[family], names.index(name), "o", color=STABLE, ms=4)
            axis.set_title(family, fontsize=9)
            axis.set_xlim(0, 1.05)
            axis.set_yticks(range(len(names)), names if axis is axes[0] else [""] * len(names))
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.grid(axis="y", color="#e5e5e5")
    return finish[0]


@contextmanager
def figure(
    width: float, height: float, columns: int = 1, rows: int = 1
) -> Iterator[tuple[Any, list[str]]]:
    """Give the axes to draw on; afterwards the list holds the markdown of the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = [drawn.add_subplot(rows, columns, 1 + place) for place in range(rows * columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
    finished: list[str] = []
    yield axes, finished
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    finished.append(embed(buffer.getvalue()))
