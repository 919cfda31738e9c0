"""Uncompressed bitmaps with a palette, as bytes.

A PNG's bytes depend on the version of zlib that packed it; a BMP's do not, so a generated
data set has the same fingerprint on every machine.
"""

import struct

import numpy as np

HEADER = 14 + 40 + 256 * 4


def encode_bmp(pixels: np.ndarray, palette: np.ndarray) -> bytes:
    """One 8-bit picture.

    Args:
        pixels: palette indices, uint8, (height, width); the width a multiple of 4.
        palette: uint8, (colours, 3), red green blue; at most 256 colours.

    Source: BITMAPFILEHEADER and BITMAPINFOHEADER of the Windows bitmap format.
    """
    height, width = pixels.shape
    if width % 4 or pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 rows of 4n pixels, got {pixels.dtype} of {width}")
    table = np.zeros((256, 4), np.uint8)
    table[: len(palette), :3] = palette[:, ::-1]
    size = HEADER + height * width
    return (
        struct.pack("<2sIHHI", b"BM", size, 0, 0, HEADER)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, height * width, 0, 0, 256, 0)
        + table.tobytes()
        + pixels[::-1].tobytes()
    )
