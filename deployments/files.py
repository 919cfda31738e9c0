"""Files and folders that are whole at any moment, and locks between processes.

What is written here never goes through a link: whoever can lay a link into one of our folders
must not choose where we write. And it is for its owner's eyes alone: pictures, records and keys
are nobody else's on a machine that several people use.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO, Literal
from uuid import uuid4

from policy.errors import Busy

LOCK, PART = ".lock", ".part"
"""How the names of our hidden locks and half-written files end."""
SPARE = f".spare{PART}"
"""The file that keeps some room on a disk that may become full."""

_SPARE_BYTES = 2 * 2**20
Kind = Literal["file", "link", "special"]


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, on the disk when this returns.

    The temporary file's name starts with a dot, so that no pattern such as `*.conf` sees it.
    """
    make_folder(path.parent)
    part = beside(path)
    try:
        write_new(part, text.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_changed(path: Path, text: str) -> None:
    """As `write_whole`, but nothing is written, and no room needed, where it is so already."""
    if not path.is_file() or path.read_text() != text:
        write_whole(path, text)


def with_spare_room(spare: Path, write: Callable[[], None]) -> None:
    """Call `write`; where the disk is full, again in the room that `spare` kept for it.

    What takes the traffic away from a version must not need room that others took. Raises
    OSError.
    """
    try:
        write()
    except OSError as error:
        if not is_full(error) or not spare.exists():
            raise
        spare.unlink()
        write()


def keep_spare_room(spare: Path) -> None:
    """Make the file `spare` if it is not there, and there is room: for `with_spare_room`."""
    if spare.exists():
        return
    try:
        write_new(spare, bytes(_SPARE_BYTES))
    except FileExistsError:
        return  # somebody else has made it
    except OSError:
        spare.unlink(missing_ok=True)  # no room for it now; whoever calls this next tries again


def is_full(error: BaseException | None) -> bool:
    """Whether an error came of a disk, or a quota, that is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet; on the disk when this returns."""
    with new_file(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def new_file(path: Path) -> BinaryIO:
    """Open a file that is not there yet to write it. Raises FileExistsError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, as far as they are missing."""
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)  # raises if something else has its name


def create_private(path: Path, data: bytes) -> None:
    """Make a file that its owner alone may read, whole at any moment, in a folder of the same
    kind. If it is there already, it stays as it is: of two that do it at once, one counts.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file, part = mkstemp(dir=path.parent, prefix=".", suffix=PART)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        path.hardlink_to(part)
    except FileExistsError:
        pass
    finally:
        Path(part).unlink()


def beside(path: Path) -> Path:
    """A fresh hidden name next to `path`, on the same disk."""
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}{PART}")


@contextmanager
def exclusive(path: Path, what: str, wait_s: float = 120) -> Iterator[None]:
    """Hold the lock `path`, which the system frees when its holder dies. Raises Busy."""
    deadline = time.monotonic() + wait_s
    while True:
        with locked_now(path) as file:
            if file is not None:
                yield
                return
        if time.monotonic() > deadline:
            raise Busy(
                f"{what} has been busy for {wait_s:.0f} s with another call",
                holds="nothing was changed",
                do=f"find who holds {path}",
            )
        time.sleep(0.02)


@contextmanager
def locked_now(path: Path) -> Iterator[BinaryIO | None]:
    """Hold the lock `path` if it is free; None if somebody has it.

    A process that inherits the file holds the lock too, for as long as it lives.
    """
    make_folder(path.parent)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file if _is_at(path, file) else None


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the name is still that of the file: what was deleted meanwhile locks nothing."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def entries(folder: Path) -> Iterator[tuple[str, Kind]]:
    """Everything below `folder` but folders, by relative path; links are not followed."""
    found: list[tuple[str, Kind]] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        with os.scandir(folder / inner) as inside:
            for entry in inside:
                name = f"{inner}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                else:
                    found.append((name, _kind(entry)))
    yield from sorted(found)


def open_plain(path: Path) -> BufferedReader:
    """Open a file to read it. Raises OSError if it is a link, a pipe or a device."""
    # Without O_NONBLOCK the opening of a named pipe would wait for a writer.
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise kind(f"{path} is not a plain file")
    return os.fdopen(number, "rb")


def sha256_of(path: Path) -> str:
    """SHA-256 of a plain file, read piece by piece. Raises OSError."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leaves_folder(name: str) -> bool:
    """Whether a name that came from outside is anything but a plain path below a folder."""
    return "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))


def whole_copy(
    target: Path, is_good: Callable[[Path], bool], fill: Callable[[Path], None]
) -> None:
    """Make sure that `target` is good: as it is, or replaced whole by what `fill` makes.

    `fill` writes into an empty folder and raises if what it wrote is not good; then `target`
    stays as it is. Of several at once one does the work and the others use it.
    """
    if is_good(target):
        return
    with exclusive(beside_lock(target), f"the copy {target}", wait_s=600):
        if not is_good(target):  # whoever had the lock before may have made it
            replace_folder(target, fill)


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Put a new folder, filled by `fill`, in the place of whatever `target` is.

    The caller holds the lock of `target`. Who has files of the old one open keeps them.
    """
    part = target.with_name(f".{target.name}{PART}")
    remove(part)  # of a process that was killed
    new, old = part / "new", part / "old"
    make_folder(new)
    try:
        fill(new)
        if os.path.lexists(target):
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # what cannot be removed now is hidden


def beside_lock(target: Path) -> Path:
    return target.with_name(f".{target.name}{LOCK}")


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder; nothing if none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    return "file" if entry.is_file(follow_symlinks=False) else "special"
