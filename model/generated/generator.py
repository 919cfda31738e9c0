"""Generate a data set from its address: pictures, questions and a manifest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from model.dataset import manifest
from model.generated import detail, sort_of_clevr
from model.generated.bmp import encode_bmp
from model.generated.question import Question
from model.program.console import Progress
from model.program.errors import BadInput
from model.program.files import sha256_hex

CHUNK = 250
GENERATORS = {"detail": detail, "sort-of-clevr": sort_of_clevr}


@dataclass(frozen=True)
class Recipe:
    """What an address asks for: images in total, questions per image, seed."""

    name: str
    images: int
    questions: int
    seed: int


def generate(uri: str, output: Path) -> manifest.DataSet:
    """Write the data set of a `generate://` address: 80 % train, 10 % val, 10 % test.

    Raises BadInput. A pure function of the address, so it can be interrupted and repeated.
    """
    recipe = parse_uri(uri)
    (output / "images").mkdir(parents=True, exist_ok=True)
    with Progress("generate", recipe.images) as progress:
        data = manifest.write(output, "generated", _chunks(recipe, output, progress))
        progress.update(recipe.images)
    return data


def parse_uri(uri: str) -> Recipe:
    """Read `generate://detail?images=8000&questions=16&seed=7` strictly. Raises BadInput."""
    parts = urlsplit(uri)
    wanted = f"generate://NAME?images=N&questions=N&seed=N, NAME one of {', '.join(GENERATORS)}"
    if parts.scheme != "generate" or parts.netloc not in GENERATORS or parts.path:
        raise BadInput(
            f"dataset.uri (={uri}) is not the address of a generated data set", expected=wanted
        )
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    numbers = {key: int(text) for key, text in pairs if text.isascii() and text.isdigit()}
    if sorted(key for key, _ in pairs) != ["images", "questions", "seed"] or len(numbers) < 3:
        raise BadInput(f"dataset.uri (={uri}) has the wrong parameters", expected=wanted)
    most = GENERATORS[parts.netloc].QUESTIONS_MAX
    for name, low, high in (("images", 10, 1_000_000), ("questions", 1, most)):
        if not low <= numbers[name] <= high:
            raise BadInput(f"{name} (={numbers[name]})", expected=f"{low} to {high}")
    return Recipe(parts.netloc, **numbers)


def _chunks(
    recipe: Recipe, output: Path, progress: Progress
) -> Iterator[Mapping[str, Sequence[object]]]:
    draw = GENERATORS[recipe.name].draw
    for start in range(0, recipe.images, CHUNK):
        pictures_N = np.arange(start, min(start + CHUNK, recipe.images))
        pixels_N, palettes_N, asked = draw(recipe.seed, pictures_N, recipe.questions)
        files = [encode_bmp(*picture) for picture in zip(pixels_N, palettes_N, strict=True)]
        names = [f"images/{number:06d}.bmp" for number in pictures_N]
        for name, data in zip(names, files, strict=True):
            (output / name).write_bytes(data)
        hashes = [sha256_hex(data) for data in files]
        yield _columns(pictures_N, names, hashes, asked, recipe.images)
        progress.update(int(pictures_N[-1]))


def _columns(
    pictures_N: np.ndarray,
    names: Sequence[str],
    hashes: Sequence[str],
    asked: Sequence[Question],
    images: int,
) -> Mapping[str, Sequence[object]]:
    numbers = pictures_N.tolist()
    splits = [_split(number, images) for number in numbers]
    per_picture = len(asked) // len(numbers)
    where = [question.picture for question in asked]
    boxes = zip(*(question.box for question in asked), strict=True)
    columns: dict[str, Sequence[object]] = {
        "question_id": [
            f"{numbers[n]:06d}-{row % per_picture:02d}" for row, n in enumerate(where)
        ],
        "split": [splits[n] for n in where],
        "image": [names[n] for n in where],
        "image_sha256": [hashes[n] for n in where],
        "question": [question.text for question in asked],
        "answer": [question.answer for question in asked],
        "family": [question.family for question in asked],
        **dict(zip(manifest.BOX, boxes, strict=True)),
    }
    told = [question.answer_box for question in asked if question.answer_box is not None]
    if told:
        columns |= dict(zip(manifest.ANSWER_BOX, zip(*told, strict=True), strict=True))
        columns[manifest.COUNTED] = [list(chain(*question.counted)) for question in asked]
    return columns


def _split(number: int, images: int) -> str:
    return (
        "train" if 10 * number < 8 * images else "val" if 10 * number < 9 * images else "test"
    )
