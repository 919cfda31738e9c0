"""What HTTP costs an answer, and what a batch of 16 saves.

    python -m tests.benchmarks.model_serving
    python -m tests.benchmarks.model_serving --beside FOLDER    (another checkout's server too)

Targets: one question at the median within 1.3 times the bare network; a request of 16 at
least 3 times the throughput of 16 single ones. Also: how long a server takes to start.

The bare network is the one that serves, PyTorch's eager mode, on tensors that are ready; like
the server it has one thread. The client is the standard library's with its body made before,
so that it is the server that is measured. On a busy machine the median is mostly waiting for
a processor; the least disturbed tenth and the processor time tell more there.

Beside another checkout (`git worktree add FOLDER COMMIT`) both servers take turns; target: at
most 1.05 times the other's median and processor time for one question.
"""

import argparse
import base64
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from model.dataset import vocabulary
from model.network import saved_model
from model.network.network import Network, Sizes
from model.program.files import sha256_hex
from model.serving.body import Instance
from model.serving.predictor import PixelLimits, Predictor

QUESTION = "what is the texture of the red object"
WIDTH, REPEATS, BLOCK = 64, 300, 25
LIMITS = PixelLimits(4_000_000, 4_000_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", type=Path)
    beside = parser.parse_args().beside
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        release = _release(Path(name))
        port = _free_port()
        process = _serve(release, port, Path.cwd())
        server = psutil.Process(process.pid)
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            seconds = _wait(client, process)
            spent, own = server.cpu_times(), server.memory_full_info().uss / 2**20
            busy = spent.user + spent.system
            print(
                f"a server starts in {seconds:.1f} s ({busy:.1f} of a processor, {own:.0f} MiB)"
            )
            ways = _ways(client, release)
            _compare(ways)
            _processor(ways, server)
            if beside:
                _beside(client, server, release, beside)
        finally:
            process.terminate()
            process.wait(10)


def _beside(
    client: http.client.HTTPConnection, server: psutil.Process, release: Path, folder: Path
) -> None:
    port = _free_port()
    process = _serve(release, port, folder)
    try:
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        _wait(other, process)
        _take_turns((client, server), (other, psutil.Process(process.pid)))
    finally:
        process.terminate()
        process.wait(10)


def _take_turns(*servers: tuple[http.client.HTTPConnection, psutil.Process]) -> None:
    body = json.dumps({"instances": [_instance()]}).encode()
    spent: list[list[float]] = [[] for _ in servers]
    busy = [0.0 for _ in servers]
    for turn in range(2 * REPEATS // BLOCK):
        for n in (0, 1) if turn % 2 else (1, 0):
            (client, process), before = servers[n], servers[n][1].cpu_times()
            for _ in range(BLOCK):
                start = time.perf_counter()
                _send(client, "POST", "/predict", body)
                spent[n].append(time.perf_counter() - start)
            after = process.cpu_times()
            busy[n] += after.user + after.system - before.user - before.system
    ours, others = (statistics.median(seconds) for seconds in spent)
    quiet, quiets = (statistics.quantiles(seconds, n=10)[0] for seconds in spent)
    print(
        f"one question beside the other checkout: {ours / others:.2f} at the median "
        f"({1e3 * ours:.2f} and {1e3 * others:.2f} ms), {quiet / quiets:.2f} in the least "
        f"disturbed tenth, {busy[0] / busy[1]:.2f} of the processor"
    )


def _ways(client: http.client.HTTPConnection, release: Path) -> dict[str, Callable[[], object]]:
    subject, predictor = saved_model.load(release), Predictor(release, 1, LIMITS)
    image = _image()
    pixels = torch.from_numpy(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).copy())
    words = torch.from_numpy(subject.preprocessor.tokenize([QUESTION]))[None]
    bodies = [json.dumps({"instances": [_instance()] * n}).encode() for n in (1, 16)]
    instance = Instance(image, QUESTION)
    return {
        "bare network": lambda: _ask(subject.network, pixels[None], words),
        "predictor (decode, words)": lambda: predictor.answer(predictor.open([instance])),
        "health": lambda: _send(client, "GET", "/health"),
        "HTTP, 1 question": lambda: _send(client, "POST", "/predict", bodies[0]),
        "HTTP, 16 questions": lambda: _send(client, "POST", "/predict", bodies[1]),
    }


def _compare(ways: dict[str, Callable[[], object]]) -> None:
    """All measured in turn, so that a busy machine hits them alike."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - start)
    median = {name: statistics.median(seconds) for name, seconds in spent.items()}
    quiet = {name: statistics.quantiles(seconds, n=10)[0] for name, seconds in spent.items()}
    for name in ways:
        print(
            f"{name:26s} {1e3 * median[name]:6.2f} ms, "
            f"{median[name] / median['bare network']:.2f} of bare "
            f"(least disturbed tenth: {quiet[name] / quiet['bare network']:.2f})"
        )
    batch = 16 * median["HTTP, 1 question"] / median["HTTP, 16 questions"]
    print(f"one request of 16: {batch:.1f} times the throughput of 16 single ones")


def _processor(ways: dict[str, Callable[[], object]], server: psutil.Process) -> None:
    """Processor time of the server alone, in short blocks that take turns with the bare one."""
    bare = served = 0.0
    for _ in range(REPEATS // BLOCK):
        start = time.process_time()
        for _ in range(BLOCK):
            ways["bare network"]()
        bare += time.process_time() - start
        before = server.cpu_times()
        for _ in range(BLOCK):
            ways["HTTP, 1 question"]()
        after = server.cpu_times()
        served += after.user + after.system - before.user - before.system
    each = 1e3 * served / (REPEATS // BLOCK * BLOCK)
    print(f"processor: {each:.2f} ms of the server a request, {served / bare:.2f} of bare")


def _send(
    client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> None:
    client.request(method, path, body)
    reply = client.getresponse()
    text = reply.read()
    if reply.status != 200:
        raise SystemExit(f"the server answered {reply.status}: {text!r}")


def _ask(network: Network, pixels: torch.Tensor, words: torch.Tensor) -> None:
    with torch.inference_mode():
        network(pixels, words)


def _release(folder: Path) -> Path:
    release = folder / "v1"
    words, answers = vocabulary.build([QUESTION]), ("rows", "columns", "checks")
    sizes = Sizes(WIDTH, len(words) + 1, len(answers), "none")
    saved_model.save_plain(
        release, sizes, Network(sizes).state_dict(), words, answers, "sha256:0"
    )
    lines = [f"{sha256_hex(p.read_bytes())}  {p.name}\n" for p in sorted(release.iterdir())]
    (release / "MANIFEST").write_text("".join(lines))
    return release


def _instance() -> dict[str, str]:
    return {"image": base64.b64encode(_image()).decode(), "question": QUESTION}


def _image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(64).save(buffer, "BMP")
    return buffer.getvalue()


def _serve(release: Path, port: int, folder: Path) -> subprocess.Popen[bytes]:
    address = {
        "AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/predict", "ARR_COC_VERSION": "v1",
        "ARR_COC_PICTURE_PIXELS_MAX": str(LIMITS.picture),
        "ARR_COC_REQUEST_PIXELS_MAX": str(LIMITS.request),
    }  # fmt: skip
    command = [sys.executable, "-m", "model.serve", f"--release={release}"]
    return subprocess.Popen(command, env=os.environ | address, cwd=folder)


def _wait(client: http.client.HTTPConnection, process: subprocess.Popen[bytes]) -> float:
    """Seconds until the server answered."""
    start = time.perf_counter()
    while process.poll() is None:
        try:
            _send(client, "GET", "/health")
        except OSError:
            client.close()
            time.sleep(0.02)
        else:
            return time.perf_counter() - start
    raise SystemExit("the server ended")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
