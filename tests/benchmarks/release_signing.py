"""Seconds to seal, publish and fetch a signed release, of the demo's size and of 1 GB.

    .venv/bin/python -m tests.benchmarks.release_signing

Everything is on this machine's disk and in its page cache. `of it` is what the signature
adds: signing, or checking a signature, with all files hashed once more. Processor seconds are
what to compare on a busy machine.
"""

import hashlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments import Release
from deployments.releases import folder as releases
from deployments.releases import signing
from deployments.store import open_store

SIZES = {
    "demo, 3 MB": {"weights.safetensors": 758_096, "requests.jsonl": 1_999_056},
    "1 GB": {"weights.safetensors": 1_000_000_000},
}
IMPORT = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


def main() -> None:
    for module in ("import model_signing", "import cryptography.x509", "import hashlib"):
        command = [sys.executable, "-c", IMPORT.format(module)]
        took_s = min(float(subprocess.check_output(command)) for _ in range(3))
        print(f"{module:26} {took_s:.2f} processor s")
    key = signing.new_key()
    trusted = {key.public.fingerprint: key.public}
    print(f"{'':26} {'wall s':>8} {'processor s':>12}")
    for size, files in SIZES.items():
        folder = Path(tempfile.mkdtemp(prefix="arr"))
        try:
            measure(size, folder, files, key, trusted)
        finally:
            shutil.rmtree(folder)


def measure(
    size: str,
    folder: Path,
    files: dict[str, int],
    key: signing.PrivateKey,
    trusted: signing.Trusted,
) -> None:
    """Print one line for each step in the life of a release."""
    release, store = folder / "release", open_store(str(folder / "store"))
    release.mkdir()
    for name, length in files.items():
        block = secrets.token_bytes(min(length, 1 << 20))
        with (release / name).open("wb") as file:
            for start in range(0, length, len(block)):
                file.write(block[: length - start])
    signing.sign(release, key)  # not measured: the library is imported here
    digest = told(f"{size}: seal", lambda: releases.seal(release, key))
    told("  of it signing", lambda: signing.sign(release, key))
    told(f"{size}: publish", lambda: releases.publish(store, release, digest, trusted))
    one, copies = Release("v1", digest), folder / "copies"
    told(f"{size}: fetch", lambda: releases.fetch(store, one, copies, trusted))
    told(f"{size}: fetch again", lambda: releases.fetch(store, one, copies, trusted))
    told("  of it the signature", lambda: signing.check(copies / digest, digest, trusted))
    told("  one SHA-256 of all", lambda: [digest_of(release / name) for name in files])


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def told(what: str, work: Callable[[], Any]) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    print(
        f"{what:26} {time.perf_counter() - wall:8.3f} {time.process_time() - processor:12.3f}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
