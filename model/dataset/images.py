"""Decode an image file into the pixels that the network takes, in one way for all programs."""

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL import WebPImagePlugin as _  # noqa: F401  Pillow would load all of its formats for it

from model.dataset.image_files import SCANS, readable
from model.program.errors import BadInput

PIXELS = 80
BLOCK = 8  # pixels
PIXELS_MAX = 50_000_000  # a larger picture is refused, not decoded

Image.MAX_IMAGE_PIXELS = PIXELS_MAX // 2  # Pillow raises at twice this, and warns before
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
RUN_LENGTHS = (1, 2)  # values of a BMP's compression
ADDRESS = re.compile(r" ?<[^>]* at 0x[0-9a-f]+>")  # of our buffer; nobody else's business


@dataclass(frozen=True)
class Opened:
    """An image file of which the header was read. Nothing is decoded before `rgb`.

    `scans`: how often a decoder goes over all of it.
    """

    name: str
    image: Image.Image
    scans: int = 1

    @property
    def pixels(self) -> int:
        """What it costs to decode: a JPEG is made of whole blocks, also where it is one pixel
        high, and what has more scans than usual counts once more for as many again.
        """
        wide, high = self.image.size
        if self.image.format == "JPEG":
            wide, high = (-(-side // BLOCK) * BLOCK for side in (wide, high))
        return wide * high * max(SCANS, self.scans) // SCANS

    def rgb(self) -> Image.Image:
        """The whole picture (its first, if there are several). Raises BadInput."""
        try:
            with self.image as image:
                image.load()
                return image.convert("RGB")
        except Exception as error:  # decoders of hostile bytes raise whatever they like
            raise _undecodable(self.name, error) from error


def open_file(data: bytes, name: str, pixels_max: int = PIXELS_MAX) -> Opened:
    """Read the header of a PNG, JPEG, WebP or BMP. Raises BadInput, also for a larger one."""
    try:
        kind, parts, scans = readable(data)
        image = Image.open(io.BytesIO(parts), formats=[kind])
        if kind == "BMP" and image.info["compression"] in RUN_LENGTHS:
            raise ValueError("a compressed BMP, which Pillow decodes in Python")
    except Image.DecompressionBombError as error:
        raise _too_large(name, "too many pixels", pixels_max) from error
    except Exception as error:  # as above
        raise _undecodable(name, error) from error
    opened = Opened(name, image, scans)
    if opened.pixels > pixels_max:
        often = f" in {scans} scans" if scans > SCANS else ""
        raise _too_large(name, f"{image.width} × {image.height} pixels{often}", pixels_max)
    return opened


def decode(data: bytes, name: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels uint8 (80, 80, 3), red green blue, and the width and height they had before.

    Pictures of another size are scaled, whatever their shape. Raises BadInput.
    """
    return scaled(open_file(data, name))


def scaled(opened: Opened) -> tuple[np.ndarray, tuple[int, int]]:
    """As `decode`, of a file that was opened before."""
    picture = opened.rgb()
    size = picture.size
    if size != (PIXELS, PIXELS):
        picture = picture.resize((PIXELS, PIXELS), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(picture), size


def _too_large(name: str, found: str, pixels_max: int) -> BadInput:
    return BadInput(
        f"{name} has {found}", expected=f"at most {pixels_max}", do="send it smaller"
    )


def _undecodable(name: str, error: Exception) -> BadInput:
    return BadInput(
        f"{name} cannot be decoded as an image ({why(error)})",
        expected="a whole PNG, JPEG, WebP or BMP file",
    )


def why(error: BaseException) -> str:
    """What a decoder said, without the addresses in memory that Pillow tells."""
    if isinstance(error, UnidentifiedImageError):
        return "its header is damaged"
    return ADDRESS.sub("", str(error))[:200] or type(error).__name__
