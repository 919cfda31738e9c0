"""The store in a folder on this disk."""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deployments.files import (
    LOCK,
    PART,
    SPARE,
    beside,
    beside_lock,
    entries,
    exclusive,
    make_folder,
    new_file,
    open_plain,
    replace_folder,
    with_spare_room,
    write_new,
)
from deployments.stores.done import (
    Done,
    File,
    checked,
    done_key,
    done_of,
    holds,
    key_below,
    parse,
)
from policy.errors import AlreadyExists, NotFound, StoreError

# What `open_plain` meets: a pipe or a device, a link, a socket.
_SMALL_BYTES = 2**16  # a record is smaller
_NOT_PLAIN = (None, errno.ELOOP, errno.ENXIO)


class DiskStore:
    """`deployments.Store` in a folder. Objects are plain files; links are none."""

    def __init__(self, root: str) -> None:
        self._folder = Path(root).absolute()
        self.root = str(self._folder)
        try:
            make_folder(self._folder)
        except OSError as error:
            raise StoreError(
                f"the store at {root} does not open: {error}",
                expected="a writable folder, gs://bucket/prefix or s3://bucket/prefix",
            ) from error

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, whole and on the disk or not at all.

        Raises AlreadyExists, StoreError.
        """
        path = self._path(key)
        part = beside(path)
        with self._writing(key):
            make_folder(path.parent)
            # A record that takes a version's traffic away must not need room that others took.
            spare = self._folder / SPARE if len(data) <= _SMALL_BYTES else part
            with_spare_room(spare, lambda: self._create(part, path, key, data))
            _sync(path.parent)

    def read(self, key: str) -> bytes:
        """Return the object; links and devices are none. Raises NotFound, StoreError."""
        try:
            with open_plain(self._path(key)) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"no {key} in {self.root}") from error
        except OSError as error:
            if error.errno in _NOT_PLAIN:
                raise NotFound(f"{key} in {self.root} is a link or a device") from error
            raise StoreError(f"{key} in {self.root}: {error}") from error

    def lies_there(self, key: str) -> bool:
        """Whether anything has this name, be it a folder or a link, which are not objects."""
        return os.path.lexists(self._path(key))

    def set_aside(self, key: str, to: str) -> None:
        """Give an object another name below the same root. Raises StoreError."""
        source, target = self._path(key), self._path(to)
        with self._writing(to):
            make_folder(target.parent)
            source.rename(target)
            _sync(target.parent)
            _sync(source.parent)

    def list(self, prefix: str, after: str = "") -> Sequence[str]:
        """Keys under the folder `prefix` that come after the key `after`, in order.

        Reads names alone: no file is looked at. Raises StoreError.
        """
        prefix = prefix.strip("/")
        folder = self._path(prefix) if prefix else self._folder
        try:
            return sorted(_keys(folder, f"{prefix}/" if prefix else "", after))
        except OSError as error:
            raise StoreError(f"{prefix} in {self.root}: {error}") from error

    def upload(self, folder: Path, uri: str) -> None:
        """Copy the files of `folder` to `uri`, their checksums last. Safe to repeat.

        A folder that lies there already gets its done file alone. Raises StoreError.
        """
        key = key_below(self.root, uri)
        target = self._path(key)
        with self._writing(key), exclusive(beside_lock(target), f"the upload to {uri}", 600):
            if folder.resolve() == target.resolve():
                done = done_of(folder)
            elif self._has(key, folder):
                return
            else:
                self.withdraw(uri)
                done = _copied(folder, target)
            self._write_done(key, done)

    def download(self, uri: str) -> Path:
        """The folder itself, if it was uploaded to its end and no file is gone since.

        Its bytes are not hashed: they lie where they were made. Raises NotFound, StoreError.
        """
        if not self.is_whole(uri):
            raise NotFound(
                f"{uri} is not there, or not whole",
                expected="a folder that was uploaded to its end",
                do="run the step that makes it: start its flow again (retrain/on-demand)",
            )
        return self._path(key_below(self.root, uri))

    def is_whole(self, uri: str) -> bool:
        """Whether `uri` was uploaded to its end, and has all its files. Raises StoreError."""
        key = key_below(self.root, uri)
        try:
            done = parse(self.read(done_key(key)), uri)
            return done.files.keys() <= {name for name, _ in entries(self._path(key))}
        except (NotFound, FileNotFoundError, NotADirectoryError):
            return False

    def withdraw(self, uri: str) -> None:
        """What lies at `uri` is about to change: it is whole no more."""
        self._path(done_key(key_below(self.root, uri))).unlink(missing_ok=True)

    def _has(self, key: str, folder: Path) -> bool:
        """Whether this very folder was uploaded before, and is there still."""
        try:
            done = parse(self.read(done_key(key)), key)
        except NotFound:
            return False
        return holds(self._path(key), done) and done_of(folder) == done

    def _write_done(self, key: str, done: Done) -> None:
        path = self._path(done_key(key))
        part = beside(path)
        try:
            write_new(part, done.encode())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / checked(key, self.root)

    def _create(self, part: Path, path: Path, key: str, data: bytes) -> None:
        try:
            write_new(part, data)
            self._link(part, path, key)
        finally:
            part.unlink(missing_ok=True)

    def _link(self, part: Path, path: Path, key: str) -> None:
        try:
            path.hardlink_to(part)
        except FileExistsError as error:
            raise AlreadyExists(
                f"{key} exists in {self.root}", holds="it is unchanged"
            ) from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{key} was not written to {self.root}: {error}",
                holds="nothing under that name was changed",
                do="check the room and the rights there, then run again",
            ) from error


def _keys(folder: Path, prefix: str, after: str) -> Iterator[str]:
    try:
        inside = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with inside:
        for entry in inside:
            key = prefix + entry.name
            below = key + "/"
            if below <= after and not after.startswith(below):
                continue  # neither the file nor anything in the folder comes after
            if entry.is_dir(follow_symlinks=False):
                yield from _keys(folder / entry.name, below, after)
            elif key > after and not _is_ours(entry.name):
                yield key


def _is_ours(name: str) -> bool:
    """A lock or a half-written file is not an object."""
    return name.startswith(".") and name.endswith((LOCK, PART))


def _copied(folder: Path, target: Path) -> Done:
    """Replace `target` by a copy of the plain files of `folder`; say what was copied."""
    files = {}

    def fill(new: Path) -> None:
        for name, kind in entries(folder):
            if kind == "file":
                files[name] = _copy(folder / name, new / name)

    replace_folder(target, fill)
    return Done(files=files)


def _copy(source: Path, target: Path) -> File:
    make_folder(target.parent)
    sha256, length = hashlib.sha256(), 0
    with open_plain(source) as old, new_file(target) as new:
        while piece := old.read(1 << 20):
            new.write(piece)
            sha256.update(piece)
            length += len(piece)
    return File(sha256=sha256.hexdigest(), bytes=length)


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
