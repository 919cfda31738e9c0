"""Which image files are read, and the parts of them that pixels are made of.

Pillow knows 43 formats, some of which run programs or read other files, and parses metadata
as it opens a file: texts that inflate, EXIF whose entries overlap. Strangers send what is read
here, so all but four formats are refused and nothing that no pixel comes from reaches Pillow.
"""

import re
import struct

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
PARTS_MAX = 10_000  # chunks of a PNG, segments of a JPEG
SCANS_MAX = 50  # each goes over all pixels of a progressive JPEG
SCANS = 10  # about as many as one has

_PNG_PARTS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_PNG_START = b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff([^\xff\x00])")
_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, _SCAN)))  # markers without a length
_APP0, _ADOBE = 0xE0, 0xEE  # say how colours are stored
_JPEG_PARTS = frozenset((*range(0xC0, 0xD0), 0xDB, 0xDD, _APP0, _ADOBE)) - {0xC8}


def readable(data: bytes) -> tuple[str, bytes, int]:
    """The format, the file without what no pixel comes from, and how many scans a decoder
    makes of it, 1 for most. Raises ValueError.

    A damaged file comes out damaged, for the decoder to refuse.
    """
    if data.startswith(_PNG_START):
        return "PNG", _png(data), 1
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", *_jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", data, 1
    if data.startswith(b"BM"):
        return "BMP", data, 1
    raise ValueError("no PNG, JPEG, WebP or BMP")


def _png(data: bytes) -> bytes:
    """The chunks of the first picture: those of an animation are others."""
    kept, at = [_PNG_START], len(_PNG_START)
    for _ in range(PARTS_MAX):
        if len(data) < at + 8:
            return b"".join(kept)
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in _PNG_PARTS:
            kept.append(data[at : at + 12 + length])
        if kind == b"IEND":
            return b"".join(kept)
        at += 12 + length
    raise ValueError(f"more than {PARTS_MAX} chunks")


def _jpeg(data: bytes) -> tuple[bytes, int]:
    kept, at = [b"\xff\xd8"], 2
    for _ in range(PARTS_MAX):
        found = _MARKER.search(data, at)
        if not found:
            return b"".join(kept), 1
        marker, at = data[found.start() + 1], found.end()
        if marker in _ALONE:
            continue
        if marker == _SCAN:
            return b"".join((*kept, data[found.start() :])), _scans(data, at)
        end = at + int.from_bytes(data[at : at + 2])
        if marker in _JPEG_PARTS:
            kept.append(data[found.start() : end])
        at = max(end, at)
    raise ValueError(f"more than {PARTS_MAX} segments")


def _scans(data: bytes, at: int) -> int:
    """Of a JPEG whose first scan begins there; what follows its end does not count."""
    scans = 1 + data.count(b"\xff\xda", at)
    if scans <= SCANS:
        return scans  # as nearly always, or even fewer; without looking for the end
    scans = 1
    while (found := _MARKER.search(data, at)) and data[found.start() + 1] != _END:
        marker, at = data[found.start() + 1], found.end()
        scans += marker == _SCAN
        if scans > SCANS_MAX:
            raise ValueError(f"more than {SCANS_MAX} scans")
        if marker not in _ALONE:
            at = max(at + int.from_bytes(data[at : at + 2]), at)
    return scans
