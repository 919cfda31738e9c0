"""attention.png: where the tokens went, for one question of each family."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from model.dataset.batches import SplitReader
from model.network.allocator import COARSE, FINE
from model.network.levels import GRID
from model.network.network import Network
from model.pretrained.network import PretrainedNetwork

COLUMNS = 3
WAYS = {
    "propositional": "prop.",
    "perspectival": "persp.",
    "participatory": "partic.",
}


@dataclass(frozen=True)
class Shown:
    """One question as it is drawn; shapes as in model/network/__init__.py."""

    pixels_PP3: np.ndarray
    level_R: list[int]
    title: str


def draw(
    network: Network | PretrainedNetwork,
    source: SplitReader,
    answers: Sequence[str],
    path: Path,
) -> None:
    """Write a PNG: bright with a frame is full detail, dim is a quarter of the resolution."""
    shown = [_ask(network, source, answers, row) for row in _one_of_each_family(source)]
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 3.6 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, COLUMNS)).flatten()
    for place in axes:
        place.set_axis_off()
    for place, one in zip(axes, shown, strict=False):
        place.imshow(one.pixels_PP3, interpolation="nearest")
        place.set_title(one.title, fontsize=7)
        for region, level in enumerate(one.level_R):
            place.add_patch(_mark(region, level, len(one.pixels_PP3) / GRID))
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=110)
    part.replace(path)


def _mark(region: int, level: int, edge: float) -> Rectangle:
    corner = (edge * (region % GRID) - 0.5, edge * (region // GRID) - 0.5)
    if level == FINE:
        return Rectangle(corner, edge, edge, fill=False, edgecolor="white", linewidth=3)
    shade = 0.65 if level == COARSE else 0.3
    return Rectangle(corner, edge, edge, color="black", alpha=shade, linewidth=0)


def _one_of_each_family(source: SplitReader) -> list[int]:
    split = source.split
    return [int(np.argmax(split.family_N == n)) for n in range(len(split.families))]


def _ask(
    network: Network | PretrainedNetwork, source: SplitReader, answers: Sequence[str], row: int
) -> Shown:
    split = source.split
    image = split.image_of(row)
    batch = source.read([image], 0)
    turn = row - int(split.first_I[image])
    with torch.inference_mode():
        reply = network(batch.image_BPP3, batch.word_BQL)
    found = answers[int(reply.answer_BQA[0, turn].argmax())]
    truth = split.answers[int(split.answer_N[row])]
    weights = zip(_ways(network), reply.weight_BQS[0, turn].tolist(), strict=True)
    trust = ", ".join(f"{WAYS[way]} {weight:.2f}" for way, weight in weights)
    title = f"{split.questions[int(split.question_N[row])]}?\n{found} (truth: {truth})\n{trust}"
    return Shown(batch.image_BPP3[0].numpy(), reply.level_BQR[0, turn].tolist(), title)


def _ways(network: Network | PretrainedNetwork) -> list[str]:
    return [way for way in WAYS if getattr(network, way) is not None]
