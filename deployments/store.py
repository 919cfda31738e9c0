"""The object store of every place, by obstore: a folder, gs://bucket/prefix or s3://…

Three calls are all that the project needs of a store, so that a disk, GCS and S3 behave
alike: objects are created once, never changed, and listed in order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy.errors import AlreadyExists, NotFound, StoreError


def open_store(root: str) -> "ObjectStore":
    """Open the store at `root`, a folder (made if missing) or an object-store URL.

    Credentials come from the environment, as each cloud's own tools read them.
    """
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, from_url

    try:
        if "://" in root:
            return ObjectStore(root, from_url(root))
        folder = Path(root).absolute()
        return ObjectStore(root, LocalStore(prefix=folder, mkdir=True))
    except (BaseError, OSError) as error:
        raise StoreError(
            f"the store at {root} does not open: {_first_line(error)}",
            expected="a writable folder, gs://bucket/prefix or s3://bucket/prefix",
        ) from error


class ObjectStore:
    """`deployments.Store` over obstore."""

    def __init__(self, root: str, store: Any) -> None:
        self.root = root
        self._store = store

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises AlreadyExists, StoreError."""
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            self._store.put(key, data, mode="create")
        except AlreadyExistsError as error:
            raise AlreadyExists(
                f"{key} exists in {self.root}", holds="it is unchanged"
            ) from error
        except (BaseError, OSError) as error:
            raise StoreError(
                f"{key} was not written to {self.root}: {_first_line(error)}",
                holds="nothing under that name was changed",
                do="check the room and the rights there, then run again",
            ) from error

    def read(self, key: str) -> bytes:
        """Return the object. Raises NotFound, StoreError."""
        from obstore.exceptions import BaseError

        try:
            return bytes(self._store.get(key).bytes())
        except FileNotFoundError as error:
            raise NotFound(f"no {key} in {self.root}") from error
        except (BaseError, OSError) as error:
            raise StoreError(f"{key} in {self.root}: {_first_line(error)}") from error

    def list(self, prefix: str) -> Sequence[str]:
        """Keys under the folder `prefix`, in order."""
        from obstore.exceptions import BaseError

        try:
            chunks = list(self._store.list(prefix.rstrip("/") + "/"))
        except (BaseError, OSError) as error:
            raise StoreError(f"{prefix} in {self.root}: {_first_line(error)}") from error
        return sorted(entry["path"] for chunk in chunks for entry in chunk)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
