"""The "detail" data set: pictures in which each way of knowing is needed by one family.

A picture of 80 × 80 pixels has 16 regions of 20 × 20. Six regions hold an object, each of
another colour; one holds a hidden patch and one a flashing patch. Every texture has a
period of two pixels and a mean of zero, and everything lies on even pixels, so at half the
resolution a texture has vanished without a trace: to name it, a model must look at that
region in full detail, and its budget pays for one such region.

    query                  texture of the red object: the question's words find the region
    hidden                 texture of the hidden patch: many levels of brightness, hence high
                           entropy, but weak edges and no trace at half the resolution
    flash                  texture of the flashing patch: two levels, the strongest edges
    shape, side, height    of an object; half the resolution is enough

Shape legend: N pictures, K objects, M objects and patches (K + 2).
"""

from dataclasses import dataclass

import numpy as np

from model.generated.question import Question
from model.generated.seeded_random import below, random_integers, shuffled

SIZE, GRID = 80, 4
CELL = SIZE // GRID
COLOURS = {
    "red": (190, 70, 70),
    "green": (70, 170, 70),
    "blue": (70, 70, 190),
    "orange": (205, 130, 50),
    "purple": (150, 60, 160),
    "yellow": (200, 200, 70),
}
SHAPES = ("square", "circle", "triangle")
TEXTURES = ("rows", "columns", "checks")
HIDDEN = (
    "what is the texture of the hidden patch",
    "which texture has the hidden patch",
    "name the texture of the hidden patch",
)
FLASH = tuple(question.replace("hidden", "flashing") for question in HIDDEN)
FAMILIES = ("query", "hidden", "flash", "shape", "side", "height")
QUESTIONS_MAX = len(FAMILIES) * len(HIDDEN)

BACKGROUND, CONTRAST, FLASHING = 128, 36, 90
FAINT = range(4, 33, 4)  # amplitudes inside the hidden patch
SHINE = 12  # brightness of a whole picture differs by up to this
FIRST_FAINT = 1 + 2 * len(COLOURS)
FIRST_FLASHING = FIRST_FAINT + 2 * len(FAINT)


@dataclass(frozen=True)
class Scenes:
    """Where what lies; all integers. Index K is the hidden patch, K + 1 the flashing one."""

    region_NM: np.ndarray
    shape_NM: np.ndarray
    texture_NM: np.ndarray
    blocks_NM: np.ndarray  # edge length in blocks of 2 × 2 pixels
    corner_NM2: np.ndarray  # upper left corner within the region in blocks, x then y


def draw(
    seed: int, pictures_N: np.ndarray, questions: int
) -> tuple[np.ndarray, np.ndarray, list[Question]]:
    """Pictures and their questions, a pure function of the seed and each picture's number.

    Returns:
        palette indices uint8 (N, 80, 80), palettes uint8 (N, colours, 3), and the questions,
        `questions` (at most 18) of each picture, no question twice in a picture.
    """
    scenes = _scenes(seed, pictures_N)
    return (
        _pixels(seed, pictures_N, scenes),
        _palettes(seed, pictures_N),
        _ask(seed, pictures_N, scenes, questions),
    )


def _scenes(seed: int, pictures_N: np.ndarray) -> Scenes:
    M = len(COLOURS) + 2
    blocks = 6 + below(random_integers(seed, "blocks", pictures_N, M), 3)
    blocks[:, -2:] = 8
    shape = below(random_integers(seed, "shape", pictures_N, M), len(SHAPES))
    shape[:, -2:] = SHAPES.index("square")
    room = np.uint64(1 + CELL // 2) - blocks.astype(np.uint64)
    corner = [random_integers(seed, axis, pictures_N, M) % room for axis in ("x", "y")]
    return Scenes(
        region_NM=shuffled(random_integers(seed, "region", pictures_N, GRID * GRID))[:, :M],
        shape_NM=shape,
        texture_NM=below(random_integers(seed, "texture", pictures_N, M), len(TEXTURES)),
        blocks_NM=blocks,
        corner_NM2=np.stack(corner, axis=-1).astype(np.int64),
    )


def _pixels(seed: int, pictures_N: np.ndarray, scenes: Scenes) -> np.ndarray:
    N, M = scenes.region_NM.shape
    inside = _twice(
        _stamps()[
            scenes.shape_NM,
            scenes.blocks_NM,
            scenes.corner_NM2[..., 1],
            scenes.corner_NM2[..., 0],
        ]
    )
    phase = below(random_integers(seed, "phase", pictures_N, M), 2)
    bright = _textures()[scenes.texture_NM] ^ phase[..., None, None].astype(np.uint8)
    first = np.empty((N, M, CELL, CELL), np.uint8)
    first[:, :-2] = (1 + 2 * np.arange(M - 2, dtype=np.uint8))[:, None, None]
    faint = below(random_integers(seed, "faint", pictures_N, (CELL // 2) ** 2), len(FAINT))
    first[:, -2] = FIRST_FAINT + 2 * _twice(faint.reshape(N, CELL // 2, CELL // 2)).astype(
        np.uint8
    )
    first[:, -1] = FIRST_FLASHING
    cells = np.zeros((N, GRID * GRID, CELL, CELL), np.uint8)
    painted = np.where(inside, first + bright, np.uint8(0))
    np.put_along_axis(cells, scenes.region_NM[:, :, None, None], painted, axis=1)
    grid = cells.reshape(N, GRID, GRID, CELL, CELL).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(grid.reshape(N, SIZE, SIZE))


def _palettes(seed: int, pictures_N: np.ndarray) -> np.ndarray:
    """Index 0 is the background; then pairs of a darker and a brighter colour."""
    grey = [(BACKGROUND,) * 3]
    pairs = [(np.array(rgb), CONTRAST) for rgb in COLOURS.values()]
    pairs += [(np.array(grey[0]), amplitude) for amplitude in [*FAINT, FLASHING]]
    colours = np.array(grey + [tuple(rgb + sign * by) for rgb, by in pairs for sign in (-1, 1)])
    shine_N = below(random_integers(seed, "shine", pictures_N, 1)[:, 0], 2 * SHINE + 1) - SHINE
    return np.clip(colours[None] + shine_N[:, None, None], 0, 255).astype(np.uint8)


def _stamps() -> np.ndarray:
    """Masks by shape, edge length and corner: bool (shape, 9, 5, 5, 10, 10) in blocks."""
    room = CELL // 2
    stamps = np.zeros((len(SHAPES), 9, 5, 5, room, room), bool)
    for blocks in (6, 7, 8):
        y, x = np.mgrid[:blocks, :blocks]
        twice_y, twice_x = 2 * y + 1 - blocks, 2 * x + 1 - blocks
        forms = (
            np.ones((blocks, blocks), bool),
            twice_x**2 + twice_y**2 <= blocks**2,
            2 * abs(twice_x) <= 2 * y + 2,
        )
        for shape, form in enumerate(forms):
            for top in range(room - blocks + 1):
                for left in range(room - blocks + 1):
                    stamps[
                        shape, blocks, top, left, top : top + blocks, left : left + blocks
                    ] = form
    return stamps


def _textures() -> np.ndarray:
    """Which pixels are bright: uint8 (texture, 20, 20); every 2 × 2 block has two of four."""
    y, x = np.mgrid[:CELL, :CELL]
    return np.stack([y % 2, x % 2, (x + y) % 2]).astype(np.uint8)


def _twice(blocks: np.ndarray) -> np.ndarray:
    return blocks.repeat(2, axis=-2).repeat(2, axis=-1)


def _ask(seed: int, pictures_N: np.ndarray, scenes: Scenes, questions: int) -> list[Question]:
    """Families in turn; a family's objects in a random order, so that none comes twice."""
    objects = len(COLOURS)
    order = {
        family: shuffled(random_integers(seed, family, pictures_N, objects)).tolist()
        for family in FAMILIES
    }
    columns, rows = scenes.region_NM % GRID, scenes.region_NM // GRID
    corner_x = CELL * columns + 2 * scenes.corner_NM2[..., 0]
    corner_y = CELL * rows + 2 * scenes.corner_NM2[..., 1]
    edge = 2 * scenes.blocks_NM
    box = np.stack([corner_x, corner_y, corner_x + edge, corner_y + edge], -1).tolist()
    texture, shape = scenes.texture_NM.tolist(), scenes.shape_NM.tolist()
    names = list(COLOURS)
    asked = []
    for n in range(len(pictures_N)):
        for k in range(questions):
            family, turn = FAMILIES[k % len(FAMILIES)], k // len(FAMILIES)
            if family in ("hidden", "flash"):
                m = objects + (family == "flash")
                text = (HIDDEN if family == "hidden" else FLASH)[turn]
                answer = TEXTURES[texture[n][m]]
            else:
                m = order[family][n][turn]
                text, answer = _about_object(
                    family, names[m], shape[n][m], texture[n][m], box[n][m]
                )
            asked.append(Question(n, text, answer, family, tuple(box[n][m])))
    return asked


def _about_object(
    family: str, colour: str, shape: int, texture: int, box: list[int]
) -> tuple[str, str]:
    if family == "query":
        return f"what is the texture of the {colour} object", TEXTURES[texture]
    if family == "shape":
        return f"what is the shape of the {colour} object", SHAPES[shape]
    if family == "side":
        return f"is the {colour} object on the left or on the right", "left" if box[0] + box[
            2
        ] < SIZE else "right"
    return f"is the {colour} object at the top or at the bottom", "top" if box[1] + box[
        3
    ] < SIZE else "bottom"
