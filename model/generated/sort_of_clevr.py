"""Sort-of-CLEVR: six objects of six colours, and questions about one or about several.

    shape, side, height         about one object
    closest, furthest, count    about how one object relates to all others

Source: Santoro et al. 2017, "A simple neural network module for relational reasoning",
arXiv:1706.01427; drawn here on 80 × 80 pixels, questions in words.

Shape legend: N pictures, K objects.
"""

from dataclasses import dataclass
from itertools import compress

import numpy as np

from model.generated.question import Box, Question
from model.generated.seeded_random import below, random_integers, shuffled

SIZE = 80
RADIUS = 5
APART = 2 * RADIUS + 2  # centres of two objects, in pixels, along x or y
TRIES = 200
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 40),
    "blue": (40, 60, 220),
    "orange": (240, 150, 30),
    "grey": (110, 110, 110),
    "yellow": (230, 220, 40),
}
SHAPES = ("square", "circle")
FAMILIES = ("shape", "closest", "side", "furthest", "height", "count")
QUESTIONS_MAX = len(FAMILIES) * len(COLOURS)
NOWHERE = (-1, -1, -1, -1)
TEXTS = {
    "shape": "what is the shape of the {} object",
    "side": "is the {} object on the left or on the right",
    "height": "is the {} object at the top or at the bottom",
    "closest": "what is the shape of the object closest to the {} object",
    "furthest": "what is the shape of the object furthest from the {} object",
    "count": "how many objects have the shape of the {} object",
}


@dataclass(frozen=True)
class Scenes:
    """Where what lies, in pixels; all integers."""

    centre_NK2: np.ndarray  # x, y
    shape_NK: np.ndarray


def draw(
    seed: int, pictures_N: np.ndarray, questions: int
) -> tuple[np.ndarray, np.ndarray, list[Question]]:
    """Pictures and their questions, a pure function of the seed and each picture's number.

    Returns:
        palette indices uint8 (N, 80, 80), palettes uint8 (N, colours, 3), and the questions,
        `questions` (at most 36) of each picture, no question twice in a picture.
    """
    K = len(COLOURS)
    shape_NK = below(random_integers(seed, "shape", pictures_N, K), len(SHAPES))
    scenes = Scenes(_centres(seed, pictures_N), shape_NK)
    palette = np.array([(255, 255, 255), *COLOURS.values()], np.uint8)
    palettes = np.broadcast_to(palette, (len(pictures_N), *palette.shape))
    return _pixels(scenes), palettes, _ask(seed, pictures_N, scenes, questions)


def _centres(seed: int, pictures_N: np.ndarray) -> np.ndarray:
    """Each object at the first of its random places that touches none before, (N, K, 2)."""
    N, room = len(pictures_N), SIZE - 2 * RADIUS
    placed_NK2 = np.empty((N, 0, 2), np.int64)
    for colour in COLOURS:
        rolls = random_integers(seed, f"place of {colour}", pictures_N, 2 * TRIES)
        tries_NT2 = RADIUS + below(rolls, room).reshape(N, TRIES, 2)
        gap_NTK = abs(tries_NT2[:, :, None] - placed_NK2[:, None]).max(axis=-1)
        free_NT = (gap_NTK >= APART).all(axis=-1)
        if not free_NT.any(axis=1).all():
            raise AssertionError(f"no place for an object in {TRIES} tries")
        chosen_N12 = np.take_along_axis(tries_NT2, free_NT.argmax(axis=1)[:, None, None], 1)
        placed_NK2 = np.concatenate([placed_NK2, chosen_N12], axis=1)
    return placed_NK2


def _pixels(scenes: Scenes) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    canvas = np.zeros((len(scenes.centre_NK2), SIZE, SIZE), np.uint8)
    for k in range(len(COLOURS)):
        centre = scenes.centre_NK2[:, k, :, None, None]
        across, down = 2 * (x - centre[:, 0]) + 1, 2 * (y - centre[:, 1]) + 1
        square = np.maximum(abs(across), abs(down)) < 2 * RADIUS
        circle = across**2 + down**2 <= (2 * RADIUS) ** 2
        is_square = scenes.shape_NK[:, k, None, None] == SHAPES.index("square")
        canvas[np.where(is_square, square, circle)] = k + 1
    return canvas


def _ask(seed: int, pictures_N: np.ndarray, scenes: Scenes, questions: int) -> list[Question]:
    """Families in turn; a family's objects in a random order, so that none comes twice."""
    K, names = len(COLOURS), list(COLOURS)
    order = {f: shuffled(random_integers(seed, f, pictures_N, K)).tolist() for f in FAMILIES}
    answers, about, alike = _answers(scenes), _about(scenes), _alike(scenes).tolist()
    boxes = _boxes(scenes)
    asked = []
    for n in range(len(pictures_N)):
        for turn in range(questions):
            family = FAMILIES[turn % len(FAMILIES)]
            k = order[family][n][turn // len(FAMILIES)]
            text, answer = TEXTS[family].format(names[k]), answers[family][n][k]
            answer_box = boxes[n][about[family][n][k]] if family in about else NOWHERE
            those = compress(boxes[n], alike[n][k]) if family == "count" else ()
            asked.append(
                Question(n, text, answer, family, boxes[n][k], answer_box, tuple(those))
            )
    return asked


def _boxes(scenes: Scenes) -> list[list[Box]]:
    """Corners of each object, [picture][object]."""
    corner_NK2 = scenes.centre_NK2 - RADIUS
    boxes_NK4 = np.concatenate([corner_NK2, corner_NK2 + 2 * RADIUS], axis=-1).tolist()
    return [[(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes] for boxes in boxes_NK4]


def _alike(scenes: Scenes) -> np.ndarray:
    """Whether two objects have one shape, bool (N, K, K); an object is like itself."""
    return scenes.shape_NK[:, :, None] == scenes.shape_NK[:, None]


def _about(scenes: Scenes) -> dict[str, list[list[int]]]:
    """Which object the answer of each family is about; a count is about several."""
    N, K = scenes.shape_NK.shape
    closest_NK, furthest_NK = _closest_and_furthest(scenes)
    itself = np.broadcast_to(np.arange(K), (N, K)).tolist()
    related = {"closest": closest_NK.tolist(), "furthest": furthest_NK.tolist()}
    return {"shape": itself, "side": itself, "height": itself} | related


def _closest_and_furthest(scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of objects, (N, K) each; the first of several that are as far."""
    centre_NK2 = scenes.centre_NK2
    far_NKK = ((centre_NK2[:, :, None] - centre_NK2[:, None]) ** 2).sum(axis=-1)
    itself = np.eye(far_NKK.shape[1], dtype=np.int64) * 10**6
    return (far_NKK + itself).argmin(axis=-1), far_NKK.argmax(axis=-1)


def _answers(scenes: Scenes) -> dict[str, list[list[str]]]:
    """The answer of each family about each object, [picture][object]."""
    centre, shape_NK = scenes.centre_NK2, scenes.shape_NK
    closest_NK, furthest_NK = _closest_and_furthest(scenes)
    alike_NK = _alike(scenes).sum(axis=-1)
    shapes, middle = np.array(SHAPES), SIZE // 2
    return {
        "shape": shapes[shape_NK].tolist(),
        "side": np.where(centre[..., 0] < middle, "left", "right").tolist(),
        "height": np.where(centre[..., 1] < middle, "top", "bottom").tolist(),
        "closest": shapes[np.take_along_axis(shape_NK, closest_NK, 1)].tolist(),
        "furthest": shapes[np.take_along_axis(shape_NK, furthest_NK, 1)].tolist(),
        "count": alike_NK.astype(str).tolist(),
    }
