"""Pictures of many formats, and what a stranger makes of them."""

import io
import random
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

EDGE_VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)


def noise(width=64, height=48, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )


def exif():
    found = Image.Exif()
    found[0x0112], found[0x0132], found[0x010E] = 6, "2026:11:26 00:00:00", "x" * 100
    return found.tobytes()


def allowed():
    """Name, format and bytes of pictures that every program reads."""
    rgb, text = noise(), PngImagePlugin.PngInfo()
    text.add_text("comment", "b" * 10_000, zip=True)
    more = {"save_all": True, "append_images": [noise(seed=1)]}
    modes = {m: rgb.convert(m) for m in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK")}
    deep = Image.fromarray(np.asarray(modes["L"], np.uint16) * 257)
    options = {
        "PNG": [{}, {"pnginfo": text}, {"icc_profile": b"x" * 5000}, {"transparency": 3}, more],
        "JPEG": [{}, {"progressive": True}, {"exif": exif(), "icc_profile": b"x" * 200_000},
                 {"quality": 95, "subsampling": 0, "comment": b"hello"}],
        "WEBP": [{}, {"lossless": True}, {"exif": exif()}, more],
        "BMP": [{}],
    }  # fmt: skip
    taken = {"PNG": ("1", "L", "P", "RGB", "RGBA", "LA"), "JPEG": ("L", "RGB", "CMYK"),
             "WEBP": ("RGB", "RGBA"), "BMP": ("1", "L", "P", "RGB", "RGBA")}  # fmt: skip
    yield "PNG of 16 bits", "PNG", encoded(deep, "PNG")
    for kind, ways in options.items():
        for mode in taken[kind]:
            for option in ways:
                if "transparency" in option and mode not in ("1", "L", "P"):
                    continue
                name = f"{kind} {mode} {sorted(option)}"
                yield name, kind, encoded(modes[mode], kind, **option)


def others():
    """Name and bytes of what Pillow would read and we do not."""
    rgb = noise()
    kinds = ("AVIF", "BLP", "DDS", "EPS", "GIF", "ICNS", "ICO", "IM", "JPEG2000", "MSP", "PCX",
             "PDF", "PPM", "QOI", "SGI", "SPIDER", "TGA", "TIFF", "XBM")  # fmt: skip
    for kind in kinds:
        picture = {"BLP": rgb.convert("P"), "MSP": rgb.convert("1"), "XBM": rgb.convert("1"),
                   "SPIDER": rgb.convert("F")}.get(kind, rgb)  # fmt: skip
        try:
            yield kind, encoded(picture, kind)
        except (KeyError, OSError):
            continue  # this Pillow was built without it, or only reads it


def mutated(seeds, count, seed):
    """`count` pictures made by changing, cutting and mixing the given ones."""
    chance = random.Random(seed)  # noqa: S311  the same pictures every time
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            chance.choice(CHANGES)(chance, data, seeds)
        yield bytes(data)


def flip(chance, data, _seeds):
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def number(chance, data, _seeds):
    """A telling number, mostly in the header."""
    size, order = chance.choice((1, 2, 4)), chance.choice(("big", "little"))
    at = chance.randrange(max(1, min(len(data), chance.choice((64, 64, 1 << 20)))))
    value = chance.choice(EDGE_VALUES) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, order)


def cut(chance, data, _seeds):
    start = chance.randrange(len(data) + 1)
    del data[start : start + chance.choice((1, 4, 100, len(data)))]


def repeat(chance, data, _seeds):
    start = chance.randrange(len(data) + 1)
    part = data[start : start + chance.randrange(1, 200)]
    data[start:start] = part * chance.choice((1, 1, 50))


def mix(chance, data, seeds):
    other = chance.choice(seeds)
    start = chance.randrange(len(data) + 1)
    begin = chance.randrange(len(other))
    data[start:] = other[begin:]


CHANGES = (flip, flip, flip, number, number, number, cut, repeat, mix)
