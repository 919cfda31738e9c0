"""Image files of a conversion: hashed, decoded once as proof, and linked into place."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model.program.errors import BadInput
from model.program.files import write_whole

_AT_ONCE = 256  # images between two commits
_SHOWN = 5  # broken files named in an error


@dataclass(frozen=True)
class Wanted:
    """One image: where it lies and where it goes."""

    source: str
    image: str
    path: Path
    target: Path


def stamp(path: Path) -> str:
    """Size and time of change; equal stamps mean that a file need not be read again."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def place(wanted: Sequence[Wanted]) -> Iterator[list[tuple[Wanted, str, str]]]:
    """Hash, check and link each image; gives lists of image, stamp and SHA-256.

    A hard link needs no room, survives the removal of the source and looks like a file to
    whoever packs the data set; another disk gets a copy. All images are looked at before
    the first broken one is reported.

    Raises:
        BadInput: images that are missing or cannot be decoded.
    """
    broken: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(wanted), _AT_ONCE):
            results = list(pool.map(_place_one, wanted[start : start + _AT_ONCE]))
            broken += [f"{item.path} ({sha})" for item, mark, sha in results if not mark]
            yield [result for result in results if result[1]]
    if broken:
        shown = ", ".join(broken[:_SHOWN]) + (", …" if len(broken) > _SHOWN else "")
        raise BadInput(
            f"{len(broken)} image(s) cannot be used: {shown}",
            expected="whole image files",
            do="replace them and run the same command again; the good ones are kept",
        )


def _place_one(wanted: Wanted) -> tuple[Wanted, str, str]:
    """The image with its stamp and SHA-256, or with an empty stamp and what is wrong."""
    try:
        mark = stamp(wanted.path)
        data = wanted.path.read_bytes()
    except OSError as error:
        return wanted, "", str(error.strerror)
    reason = _undecodable(data)
    if reason:
        return wanted, "", reason
    _link(wanted.path.resolve(), wanted.target, data)
    return wanted, mark, hashlib.sha256(data).hexdigest()


def _undecodable(data: bytes) -> str:
    """Why the image cannot be decoded; empty if it can. Every byte of it is decoded."""
    from model.dataset.images import open_file, why

    try:
        image = open_file(data, "it").image
        image.draft("RGB", (image.width // 8, image.height // 8))  # a JPEG's cheap way
        image.load()
    except BadInput as error:
        return why(error.__cause__ or error)
    except Exception as error:  # decoders of hostile bytes raise whatever they like
        return why(error)
    return ""


def _link(source: Path, target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another disk, or one without links
        write_whole(target, data)
    else:
        part.replace(target)
