"""Decode an image file into the pixels that the network takes, in one way for all programs."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from model.program.errors import BadInput

PIXELS = 80
PIXELS_MAX = 50_000_000  # a larger picture is refused, not decoded

Image.MAX_IMAGE_PIXELS = PIXELS_MAX // 2  # Pillow raises at twice this


def decode(data: bytes, name: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels uint8 (80, 80, 3), red green blue, and the width and height they had before.

    Pictures of another size are scaled, whatever their shape. Raises BadInput.
    """
    picture = opened(data, name)
    size = picture.size
    if size != (PIXELS, PIXELS):
        picture = picture.resize((PIXELS, PIXELS), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(picture), size


def opened(data: bytes, name: str) -> Image.Image:
    """The whole picture, red green blue. Raises BadInput."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.convert("RGB")
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:
        raise BadInput(f"{name} cannot be decoded as an image ({_why(error)})") from error


def _why(error: Exception) -> str:
    """Pillow names our buffer by its address in memory; leave that out."""
    known = isinstance(error, UnidentifiedImageError)
    return "no known image format" if known else str(error) or type(error).__name__
