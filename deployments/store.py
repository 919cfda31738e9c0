"""Open the store of a place: a folder on this disk, gs://bucket/prefix or s3://bucket/prefix.

A disk, GCS and S3 behave alike: objects are created once, never changed and listed in order;
folders are uploaded and downloaded whole, checked by SHA-256.
"""

from pathlib import Path

from deployments import Store
from deployments.stores.bucket import BucketStore
from deployments.stores.disk import DiskStore
from policy.errors import AlreadyExists, StoreError

_PROBE = ".probe/create-if-absent"


def open_store(root: str, scratch: Path | None = None) -> DiskStore | BucketStore:
    """Open the store at `root`, a folder (made if missing) or an object-store URL.

    Credentials come from the environment, as each cloud's own tools read them. What is
    downloaded from a bucket lies in `scratch`/downloads. Raises StoreError.
    """
    plain = root.removeprefix("file://")
    return BucketStore(plain, scratch) if "://" in plain else DiskStore(plain)


def require_create_if_absent(store: Store) -> None:
    """Refuse a store in which the ledger would not be safe; call it once at start.

    Some servers that speak S3 or GCS ignore the condition "only if it is absent": there the
    second of two writers would silently win. Raises StoreError.
    """
    for _ in range(2):  # the first creation succeeds in a new store, the second never may
        try:
            store.create(_PROBE, b"")
        except AlreadyExists:
            return
    raise StoreError(
        f"the store at {store.root} ignores create-if-absent: {_PROBE} was created twice",
        expected="that an object which exists cannot be created again",
        holds="nothing was started",
        do="use Google Cloud Storage, AWS S3, a server that honours If-None-Match, or a folder",
    )
