"""Which runtime should answer: eager PyTorch, torch.export or ONNX Runtime.

    uv pip install -e '.[runtimes]'
    python -m tests.benchmarks.model_runtimes [TRAINED DATA]

TRAINED is what model.train wrote, DATA its data set; without them both are made, which takes a
minute. Every question of split test is answered by each runtime, one thread each. One question
and 16 are asked of all runtimes in turn, so that a busy machine hits them alike; what is
printed is processor time. AOTInductor is not among them: it gives up at the masks of `Levels`
(torch 2.13, "Pending unbacked symbols"), and needs a C++ compiler wherever a model is trained.

Shape legend as in model/network/__init__.py; N rows of words and picture each.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.dataset import manifest
from model.dataset.batches import split_reader
from model.generated import generator
from model.network import propositional, saved_model
from model.network.allocator import Allocator
from model.network.levels import GRID, REGIONS
from model.network.propositional import BINS, LUMINANCE, Propositional
from model.program.settings import TrainSettings
from model.training.callbacks import CheckpointSaver
from model.training.run import train
from tests.benchmarks.model_training import config

STEPS, ROUNDS, AT_ONCE, WORDS = 400, 60, 64, 32
URI = "generate://detail?images=8000&questions=16&seed=7"
Runtime = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main(paths: Sequence[str]) -> None:
    missing = [name for name in ("onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        print(
            f"nothing compared: {', '.join(missing)} not installed, see the head of this file"
        )
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, data = map(Path, paths) if paths else _trained(folder)
        compare(model, data, folder)


def compare(model: Path, data: Path, folder: Path) -> None:
    """Export into `folder`, and print what each runtime costs and how far it agrees."""
    runtimes = _runtimes(model, folder)
    for name in ("exported.pt2", "graph.onnx"):
        print(f"{name}: {(folder / name).stat().st_size / 2**20:.1f} MiB")
    images, words, evaluated = _questions(model, data)
    for count in (1, 16):
        _race(runtimes, images[:count], words[:count])
    found = {name: _all(run, images, words) for name, run in runtimes.items()}
    _agreement({"as model.evaluate asks": evaluated} | found)
    for name in ("torch", "onnxruntime"):
        _start(name)


def _trained(folder: Path) -> tuple[Path, Path]:
    generator.generate(URI, folder / "data")
    chosen = config(1, STEPS)
    chosen["tracking"]["mode"] = "disabled"
    settings = TrainSettings.model_validate(chosen)
    train(
        settings,
        folder / "data",
        folder / "train",
        CheckpointSaver(settings.checkpointing.every_s),
    )
    return folder / "train", folder / "data"


def _runtimes(model: Path, folder: Path) -> dict[str, Runtime]:
    """Each takes pictures (N, P, P, 3) and words (N, L), and gives shares of answers (N, A)."""
    plain, portable = Asked(saved_model.load(model).network), Asked(_portable(model))
    found: dict[str, Runtime] = {"eager": _eager(plain)}
    start = time.process_time()
    program = torch.export.export(portable, _example(), dynamic_shapes=_shapes(), strict=True)
    torch.export.save(program, folder / "exported.pt2")
    print(f"torch.export took {time.process_time() - start:.0f} processor seconds")
    found["torch.export"] = _eager(program.module())
    start = time.process_time()
    graph = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert graph is not None
    graph.save(folder / "graph.onnx")
    print(f"from there to ONNX: {time.process_time() - start:.0f} processor seconds")
    for level in ("BASIC", "EXTENDED"):
        found[f"ONNX Runtime, {level}"] = _onnx(folder / "graph.onnx", level)
    return found


class Asked(nn.Module):
    """One question of each picture, as serving asks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_NPP3: Tensor, word_NL: Tensor) -> Tensor:
        return self.network(image_NPP3, word_NL[:, None]).answer_BQA[:, 0].softmax(dim=-1)


def _portable(model: Path) -> nn.Module:
    """The network with three operations written as ONNX can say them; its own weights."""
    network = saved_model.load(model).network
    network.words = Summed(network.words.weight)
    if isinstance(network.allocator, Allocator):
        network.allocator = Ranked(network.allocator)
    if isinstance(network.propositional, Propositional):
        propositional._histogram = torch.no_grad()(_histogram)
    return network.eval()


class Summed(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, word_NL: Tensor) -> Tensor:
        return functional.embedding(word_NL, self.weight).sum(dim=1)


class Ranked(nn.Module):
    """The allocator without a stable sort: a region's rank is how many come before it."""

    def __init__(self, allocator: Allocator) -> None:
        super().__init__()
        self.allocator = allocator

    def forward(self, relevance_BQR: Tensor) -> Tensor:
        other, own = relevance_BQR[..., None, :], relevance_BQR[..., None]
        earlier_RR = torch.ones(REGIONS, REGIONS, dtype=torch.bool).tril(-1)
        before_BQRR = (other > own) | ((other == own) & earlier_RR)
        return self.allocator.level_by_rank_R[before_BQRR.sum(dim=-1)]


def _histogram(image_B3PP: Tensor) -> Tensor:
    """As in model/network/propositional.py, without `bincount`. K: bins."""
    B, P = image_B3PP.shape[0], image_B3PP.shape[-1]
    edge = P // GRID
    red, green, blue = image_B3PP.unbind(1)
    light = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
    bin_BPP = (light * BINS).long().clamp(0, BINS - 1)
    bins = bin_BPP.reshape(B, GRID, edge, GRID, edge).transpose(2, 3).reshape(B, REGIONS, -1)
    none = light.new_zeros(B, REGIONS, BINS)
    return none.scatter_add(2, bins, torch.ones_like(bins, dtype=light.dtype)) / edge**2


def _example() -> tuple[Tensor, Tensor]:
    return torch.zeros(3, 80, 80, 3, dtype=torch.uint8), torch.ones(3, 7, dtype=torch.int64)


def _shapes() -> tuple[dict[int, torch.export.Dim], ...]:
    rows = torch.export.Dim("rows", min=1, max=AT_ONCE)
    return {0: rows}, {0: rows, 1: torch.export.Dim("words", min=1, max=WORDS)}


def _eager(module: Callable[[Tensor, Tensor], Tensor]) -> Runtime:
    def run(image_NPP3: np.ndarray, word_NL: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(image_NPP3), torch.from_numpy(word_NL)).numpy()

    return run


def _onnx(path: Path, level: str) -> Runtime:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
    )
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]


def _questions(model: Path, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every question of split test with its picture, (M, P, P, 3) and (M, L).

    And the shares (M, A) as model.evaluate has them: all questions of 50 images at once.
    """
    subject = saved_model.load(model)
    split = manifest.read_split(manifest.read(data), "test")
    source = split_reader(data, split, subject.preprocessor, subject.answers)
    images, words, shares = [], [], []
    for start in range(0, source.images, 50):
        batch = source.read(range(start, min(start + 50, source.images)), 0)
        image_M, _ = batch.asked_BQ.nonzero().unbind(1)
        with torch.inference_mode():
            share_BQA = subject.network(batch.image_BPP3, batch.word_BQL).answer_BQA.softmax(-1)
        images.append(batch.image_BPP3[image_M].numpy())
        words.append(batch.word_BQL[batch.asked_BQ].numpy())
        shares.append(share_BQA[batch.asked_BQ].numpy())
    return np.concatenate(images), np.concatenate(words), np.concatenate(shares)


def _race(runtimes: dict[str, Runtime], images: np.ndarray, words: np.ndarray) -> None:
    spent: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(ROUNDS):
        for name, run in runtimes.items():
            start = time.process_time()
            run(images, words)
            spent[name].append(time.process_time() - start)
    eager = statistics.median(spent["eager"])
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        print(
            f"{len(words):2d} questions: {name:22s} {1e3 * median:6.2f} ms, "
            f"{median / eager:.2f} of eager"
        )


def _agreement(shares: dict[str, np.ndarray]) -> None:
    own = shares["eager"]
    for name, other in shares.items():
        same = int((own.argmax(axis=1) == other.argmax(axis=1)).sum())
        apart = np.abs(own - other).max()
        print(f"{name}: {same} of {len(own)} answers as eager, shares within {apart:.1e}")


def _all(run: Runtime, images: np.ndarray, words: np.ndarray) -> np.ndarray:
    parts = range(0, len(words), AT_ONCE)
    return np.concatenate([run(images[n : n + AT_ONCE], words[n : n + AT_ONCE]) for n in parts])


def _start(name: str) -> None:
    """What importing a runtime costs each server."""
    code = (
        f"import {name}, psutil, time; m = psutil.Process().memory_full_info();"
        "print(time.process_time(), m.rss / 2**20, m.uss / 2**20)"
    )
    texts = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
        for _ in range(3)
    ]
    seconds, resident, own = min([float(x) for x in text.split()] for text in texts)
    print(f"import {name}: {seconds:.2f} processor s, {resident:.0f} MiB, {own:.0f} its own")


if __name__ == "__main__":
    main(sys.argv[1:])
