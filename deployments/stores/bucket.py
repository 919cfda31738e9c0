"""The store in a bucket, by obstore: gs://bucket/prefix or s3://bucket/prefix."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from deployments.files import entries, open_plain, whole_copy
from deployments.stores.done import (
    MAKE_AGAIN,
    Done,
    File,
    checked,
    done_key,
    done_of,
    holds,
    key_below,
    parse,
)
from policy.errors import AlreadyExists, NotFound, StoreError, Unsupported

_PART_BYTES = 5 << 20  # what is smaller goes in one request, what is larger in parts
_AT_ONCE = 8
T = TypeVar("T")


class BucketStore:
    """`deployments.Store` over obstore."""

    def __init__(self, root: str, scratch: Path | None = None) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.root, self._scratch = root.rstrip("/"), scratch
        try:
            self._store = from_url(self.root)
        except (BaseError, OSError, ValueError) as error:
            raise StoreError(
                f"the store at {root} does not open: {_first_line(error)}",
                expected="a writable folder, gs://bucket/prefix or s3://bucket/prefix",
            ) from error

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises AlreadyExists, StoreError."""
        from obstore.exceptions import AlreadyExistsError

        with self._writing(key):
            try:
                self._store.put(checked(key, self.root), data, mode="create")
            except AlreadyExistsError as error:
                raise AlreadyExists(
                    f"{key} exists in {self.root}", holds="it is unchanged"
                ) from error

    def read(self, key: str) -> bytes:
        """Return the object. Raises NotFound, StoreError."""
        with self._reading(key):
            return bytes(self._store.get(checked(key, self.root)).bytes())

    def list(self, prefix: str, after: str = "") -> Sequence[str]:
        """Keys under the folder `prefix` that come after the key `after`, in order.

        The service itself begins after `after`. Raises StoreError.
        """
        prefix = prefix.strip("/")
        below = checked(prefix, self.root) + "/" if prefix else None
        with self._reading(prefix):
            chunks = list(self._store.list(below, offset=after or None, chunk_size=1000))
        return sorted(entry["path"] for chunk in chunks for entry in chunk)

    def upload(self, folder: Path, uri: str) -> None:
        """Store the files of `folder` under `uri`, their checksums last. Safe to repeat.

        Links are left out. Raises StoreError.
        """
        key = key_below(self.root, uri)
        before = self._done(key, uri)
        with self._writing(key):
            if before is not None and before == done_of(folder):
                return
            self.withdraw(uri)
            names = [name for name, kind in entries(folder) if kind == "file"]
            files = _at_once(lambda name: self._put(f"{key}/{name}", folder / name), names)
            done = Done(files=dict(zip(names, files, strict=True)))
            stale = set(before.files) - set(names) if before is not None else ()
            for name in stale:
                self._delete(f"{key}/{name}")
            self._store.put(done_key(key), done.encode())

    def download(self, uri: str) -> Path:
        """A folder below scratch with the files under `uri`, checked by their SHA-256.

        One that was downloaded before is checked and used again. Raises NotFound if `uri` was
        not uploaded to its end, StoreError, Unsupported without a scratch folder.
        """
        if self._scratch is None:
            raise Unsupported(
                f"{uri} cannot be downloaded: the store was opened without a scratch folder",
                expected="open_store(root, scratch)",
            )
        key = key_below(self.root, uri)
        data = self.read(done_key(key))
        done = parse(data, uri)
        target = self._scratch / "downloads" / hashlib.sha256(data).hexdigest()[:32]
        with self._reading(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            whole_copy(
                target, lambda copy: holds(copy, done), lambda new: self._fill(new, key, done)
            )
        return target

    def is_whole(self, uri: str) -> bool:
        """Whether `uri` was uploaded to its end. Raises StoreError."""
        return self._done(key_below(self.root, uri), uri) is not None

    def withdraw(self, uri: str) -> None:
        """What lies at `uri` is about to change: it is whole no more."""
        key = key_below(self.root, uri)
        with self._writing(key):
            self._delete(done_key(key))

    def _delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._store.delete(key)

    def _done(self, key: str, uri: str) -> Done | None:
        try:
            return parse(self.read(done_key(key)), uri)
        except NotFound:
            return None

    def _put(self, key: str, path: Path) -> File:
        """Send one file, hashing what is sent: it may be a log that still grows."""
        with open_plain(path) as file:
            pieces = _Hashed(file)
            first = pieces.read(_PART_BYTES)
            if len(first) < _PART_BYTES:
                self._store.put(key, first)
            else:
                self._store.put(key, pieces.all_after(first))
            return File(sha256=pieces.sha256.hexdigest(), bytes=pieces.length)

    def _fill(self, new: Path, key: str, done: Done) -> None:
        _at_once(
            lambda name: self._get(f"{key}/{name}", new / name, done.files[name]), done.files
        )

    def _get(self, key: str, path: Path, listed: File) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256()
        with path.open("xb") as file:
            for piece in self._pieces(key):
                sha256.update(piece)
                file.write(piece)
        if sha256.hexdigest() != listed.sha256:
            raise StoreError(
                f"{key} in {self.root} has SHA-256 {sha256.hexdigest()[:12]}…",
                expected=f"{listed.sha256[:12]}…, which was uploaded",
                holds="the download is not used",
                do=MAKE_AGAIN,
            )

    def _pieces(self, key: str) -> Iterator[bytes]:
        try:
            yield from self._store.get(key).stream(min_chunk_size=1 << 20)
        except FileNotFoundError as error:
            raise StoreError(
                f"{key} in {self.root} is gone, though it was uploaded",
                holds="the download is not used",
                do=MAKE_AGAIN,
            ) from error

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"no {key} in {self.root}") from error
        except (BaseError, OSError) as error:
            raise StoreError(f"{key} in {self.root}: {_first_line(error)}") from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise StoreError(
                f"{key} was not written to {self.root}: {_first_line(error)}",
                holds="nothing under that name was changed",
                do="check the room and the rights there, then run again",
            ) from error


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256, self.length = file, hashlib.sha256(), 0

    def read(self, length: int) -> bytes:
        piece = self._file.read(length)
        self.sha256.update(piece)
        self.length += len(piece)
        return piece

    def all_after(self, first: bytes) -> Iterator[bytes]:
        yield first
        while piece := self.read(_PART_BYTES):
            yield piece


def _at_once(work: Callable[[str], T], names: Collection[str]) -> list[T]:
    """Do it for all names, several at once; the first error ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(work, names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
