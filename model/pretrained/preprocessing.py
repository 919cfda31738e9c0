"""Pixels and tokens as the encoder was trained on them: preprocessor_config.json and
tokenizer.json. Shape legend: __init__.py."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from model.dataset import images
from model.dataset.preprocessing import View
from model.pretrained.encoder_config import EncoderConfig
from model.pretrained.encoder_files import read_json
from model.program.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "preprocessor_config.json"
SCALED_PIXELS_MAX = 4_000_000  # 80 times as long as high; a server scales 64 in one request
RESAMPLE = 3  # bicubic, where the file says nothing


@dataclass(frozen=True)
class ImageTransform:
    """`shortest` 0: a picture is scaled to `pixels` by `pixels`, whatever its shape.

    Else its shorter edge is scaled to `shortest` and the middle is cut out: what lies
    outside is not seen.
    """

    pixels: int
    shortest: int
    resample: Image.Resampling
    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def scaled(self, picture: Image.Image, name: str) -> tuple[Image.Image, View]:
        """The picture as the encoder gets it, and what part of it that is.

        Raises BadInput for one so long that scaling its shorter edge makes it immense.
        """
        width, height = picture.size
        if not self.shortest:
            size = (self.pixels, self.pixels)
            return picture.resize(size, self.resample), (0, 0, width, height)
        short = min(width, height)
        wide, high = (
            self.shortest if edge == short else int(self.shortest * edge / short)
            for edge in (width, height)
        )
        if wide * high > SCALED_PIXELS_MAX:
            raise BadInput(
                f"{name} has {width} × {height} pixels", expected="a less elongated image"
            )
        left, top = (wide - self.pixels) // 2, (high - self.pixels) // 2
        corners = (left, top, left + self.pixels, top + self.pixels)
        part = picture.resize((wide, high), self.resample).crop(corners)
        across, down = width / wide, height / high
        x0, y0, x1, y1 = corners
        return part, (x0 * across, y0 * down, x1 * across, y1 * down)


@dataclass(frozen=True)
class PretrainedPreprocessor:
    """`end` is the token after the last one of a question, and after it again."""

    image_transform: ImageTransform
    tokenizer: "Tokenizer"
    end: int
    length: int  # of every row of tokens; 0: of the longest question

    @property
    def pixels(self) -> int:
        return self.image_transform.pixels

    def load_image(self, data: bytes, name: str) -> tuple[np.ndarray, View]:
        return self.load_opened(images.open_file(data, name))

    def load_opened(self, opened: images.Opened) -> tuple[np.ndarray, View]:
        picture, view = self.image_transform.scaled(opened.rgb(), opened.name)
        return np.asarray(picture), view

    def tokenize(self, questions: Sequence[str]) -> np.ndarray:
        """Token numbers; a question with too many is cut, its end is not."""
        coded = [found.ids for found in self.tokenizer.encode_batch(list(questions))]
        length = self.length or max(1, *map(len, coded))
        token_ML = np.full((len(coded), length), self.end, np.int64)
        for row, ids in zip(token_ML, coded, strict=True):
            row[: len(ids)] = ids
        return token_ML


def load(folder: Path, config: EncoderConfig) -> PretrainedPreprocessor:
    """Read both files of an encoder's folder. Raises BadInput."""
    tokenizer, end = _tokenizer(folder, config)
    # SigLIP looks in both directions and was trained with texts filled up to the full length
    length = config.tokens_max if config.kind == "siglip" else 0
    return PretrainedPreprocessor(_image_transform(folder, config), tokenizer, end, length)


def _tokenizer(folder: Path, config: EncoderConfig) -> tuple["Tokenizer", int]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data workers are forks
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise BadInput(
            "the package tokenizers is not installed",
            expected="it, for the profile vqa",
            do="pip install 'arr-coc-training[vqa]'",
        ) from error
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises Exception itself
        raise BadInput(
            f"{path} is not a tokenizer ({error})", expected="the encoder's own"
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(config.tokens_max)
    lasts = [tokenizer.encode(text).ids[-1:] for text in ("a", "of the", "")]
    if not lasts[0] or any(last != lasts[0] for last in lasts):
        raise BadInput(
            f"{path} ends different texts in different ways",
            expected="one token after the last one, as CLIP's and SigLIP's have",
        )
    if tokenizer.get_vocab_size() > config.vocabulary:
        raise BadInput(
            f"{path} knows {tokenizer.get_vocab_size()} tokens",
            expected=f"at most the {config.vocabulary} of config.json",
        )
    return tokenizer, lasts[0][0]


def _image_transform(folder: Path, config: EncoderConfig) -> ImageTransform:
    """Raises BadInput for steps that CLIP and SigLIP do not have, and for another size."""
    record = read_json(folder, NAME)
    if not record.get("do_resize", True) or record.get("do_pad"):
        raise _unusable("do_resize", record.get("do_resize"), "true, and no do_pad")
    shortest, height, width = _size(record, "size")
    if shortest:
        if not record.get("do_center_crop", False):
            raise _unusable("do_center_crop", False, "true where size is of the shortest edge")
        edge, height, width = _size(record, "crop_size")
        height, width = height or edge, width or edge
    elif record.get("do_center_crop", False):
        raise _unusable("do_center_crop", True, "false where size is of both edges")
    if not height == width == config.pixels or 0 < shortest < config.pixels:
        raise _unusable(
            "size", [height, width, shortest], f"pictures of {config.pixels}² pixels"
        )
    normal = record.get("do_normalize", True)
    return ImageTransform(
        pixels=config.pixels,
        shortest=shortest,
        resample=_resample(record),
        factor=_factor(record),
        mean=_colours(record, "image_mean", 0.0) if normal else (0.0, 0.0, 0.0),
        std=_colours(record, "image_std", 1e-6) if normal else (1.0, 1.0, 1.0),
    )


def _size(record: Mapping[str, Any], key: str) -> tuple[int, int, int]:
    """Shortest edge, height and width; 0 for what is not given. A number is the edge."""
    value = record.get(key)
    if type(value) is int and value > 0:
        return value, 0, 0
    names = ("shortest_edge", "height", "width")
    if isinstance(value, dict) and set(value) in ({names[0]}, set(names[1:])):
        found = tuple(value.get(name, 0) for name in names)
        if all(type(edge) is int and edge >= 0 for edge in found) and any(found):
            return found[0], found[1], found[2]
    raise _unusable(key, value, "shortest_edge, or height and width")


def _resample(record: Mapping[str, Any]) -> Image.Resampling:
    try:
        return Image.Resampling(record.get("resample", RESAMPLE))
    except ValueError as error:
        raise _unusable("resample", record["resample"], "one of Pillow's numbers") from error


def _factor(record: Mapping[str, Any]) -> float:
    if not record.get("do_rescale", True):
        return 1.0
    value = record.get("rescale_factor", 1 / 255)
    if not isinstance(value, float) or not 0 < value <= 1:
        raise _unusable("rescale_factor", value, "a number above 0, at most 1")
    return value


def _colours(record: Mapping[str, Any], key: str, least: float) -> tuple[float, float, float]:
    value = record.get(key)
    three = value if isinstance(value, list) and len(value) == 3 else ["", "", ""]
    if not all(isinstance(one, float | int) and one >= least for one in three):
        raise _unusable(key, value, f"three numbers from {least}")
    return float(three[0]), float(three[1]), float(three[2])


def _unusable(key: str, found: object, expected: str) -> BadInput:
    return BadInput(f"{NAME}: {key} is {found!r:.60}", expected=expected)
