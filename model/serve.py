"""Serve a release over HTTP: the container contract of Vertex AI.

    AIP_HTTP_PORT=9001 AIP_HEALTH_ROUTE=/health AIP_PREDICT_ROUTE=/predict \\
    ARR_COC_VERSION=v1 ARR_COC_PICTURE_PIXELS_MAX=4000000 ARR_COC_REQUEST_PIXELS_MAX=4000000 \\
    python -m model.serve --release DIR
"""

import os
import sys
from pathlib import Path

from model.program import console
from model.serving import memory
from model.serving.address import listen, read_address

# Longer than a proxy keeps an idle connection (Envoy an hour, Google's ten minutes): a request
# sent into a connection that the server is just closing counts as an error of the version.
KEEP_ALIVE_S = 3700
CONNECTIONS_MAX = 1024  # at a port; what comes through a socket the proxy limits
GRACE_S = 5  # for the answers under way at SIGTERM


def main(release: Path) -> None:
    """Verify a release, load it and answer requests until SIGTERM."""
    address = read_address(os.environ)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(address.threads)
    from model.serving.release import verify

    verify(release, os.environ.get("ARR_COC_DIGEST", ""))
    from model.serving.app import application, unless_gone
    from model.serving.predictor import PixelLimits, Predictor

    memory.keep_freed()
    limits = PixelLimits(address.picture_pixels_max, address.request_pixels_max)
    predictor = Predictor(release, address.threads, limits)
    routes = application(
        predictor, address.version, address.health_route, address.predict_route
    )
    import uvicorn

    memory.freeze_objects()
    memory.start_giving_back()
    config = uvicorn.Config(
        unless_gone(routes), log_level="warning", access_log=False,
        http="httptools", loop="uvloop", lifespan="off", ws="none",
        timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=None if address.socket else CONNECTIONS_MAX,
    )  # fmt: skip
    with listen(address) as listener:
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    sys.exit(console.run(main, ["release"]))
