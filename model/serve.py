"""Serve a release over HTTP: the container contract of Vertex AI.

    AIP_HTTP_PORT=9001 AIP_HEALTH_ROUTE=/health AIP_PREDICT_ROUTE=/predict \\
    ARR_COC_VERSION=v1 python -m model.serve --release DIR
"""

import ctypes
import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.program import console
from model.program.errors import BadInput

# Longer than a proxy keeps an idle connection (Envoy an hour, Google's ten minutes): a request
# sent into a connection that the server is just closing counts as an error of the version.
KEEP_ALIVE_S = 3700
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@dataclass(frozen=True)
class Address:
    """Where to serve and which version, from the environment; only host and threads default."""

    host: str
    port: int
    health_route: str
    predict_route: str
    version: str
    threads: int


def main(release: Path) -> None:
    """Verify a release, load it and answer requests until SIGTERM."""
    address = read_address(os.environ)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(address.threads)
    from model.serving.release import verify

    verify(release, os.environ.get("ARR_COC_DIGEST", ""))
    from model.serving.app import application
    from model.serving.predictor import Predictor

    _keep_freed_memory()
    predictor = Predictor(release, address.threads)
    app = application(predictor, address.version, address.health_route, address.predict_route)
    import uvicorn

    _freeze_loaded_objects()
    uvicorn.run(
        app, host=address.host, port=address.port, log_level="warning", access_log=False,
        http="httptools", loop="uvloop", lifespan="off", ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
    )  # fmt: skip


def _keep_freed_memory() -> None:
    """Keep memory that one answer freed for the next; fresh pages cost a batch of 16 a sixth.

    Only the GNU C library gives memory back so eagerly, and only it has `mallopt`.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(M_TRIM_THRESHOLD, 256 * 2**20)


def _freeze_loaded_objects() -> None:
    """Exempt them from garbage collection: a pass over all of PyTorch takes 0.1 s or more."""
    gc.collect()
    gc.freeze()


def read_address(environment: Mapping[str, str]) -> Address:
    """Raises BadInput naming the variable that is missing or wrong."""
    names = ("AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "ARR_COC_VERSION")
    for name in names:
        if not environment.get(name):
            raise BadInput(f"{name} is not set", expected=f"all of {', '.join(names)}")
    port, threads = environment["AIP_HTTP_PORT"], environment.get("ARR_COC_THREADS", "1")
    for name, text in (("AIP_HTTP_PORT", port), ("ARR_COC_THREADS", threads)):
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise BadInput(f"{name} (={text})", expected="a whole number from 1 to 65535")
    for name in ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"):
        if not environment[name].startswith("/"):
            raise BadInput(
                f"{name} (={environment[name]})", expected="a path that starts with /"
            )
    if environment["AIP_HEALTH_ROUTE"] == environment["AIP_PREDICT_ROUTE"]:
        raise BadInput(
            f"AIP_PREDICT_ROUTE (={environment['AIP_PREDICT_ROUTE']}) is also the health route",
            expected="two routes",
        )
    return Address(
        host=environment.get("ARR_COC_HOST", "127.0.0.1"),
        port=int(port),
        health_route=environment["AIP_HEALTH_ROUTE"],
        predict_route=environment["AIP_PREDICT_ROUTE"],
        version=environment["ARR_COC_VERSION"],
        threads=int(threads),
    )


if __name__ == "__main__":
    sys.exit(console.run(main, ["release"]))
