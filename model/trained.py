"""A trained model on the disk: weights.safetensors and architecture.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from model.errors import BadInput
from model.files import write_json, write_whole
from model.images import PIXELS
from model.network.network import Network, Sizes

NAME = "arr-coc"
INSTANCES_MAX = 64


@dataclass(frozen=True)
class Trained:
    """A network with everything that is needed to ask it a question."""

    network: Network
    words: tuple[str, ...]
    answers: tuple[str, ...]
    data_fingerprint: str


def save(
    folder: Path, sizes: Sizes, weights: Mapping[str, Tensor], words: Sequence[str],
    answers: Sequence[str], data_fingerprint: str,
) -> None:  # fmt: skip
    """Write both files, each whole."""
    solid = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_whole(folder / "weights.safetensors", safetensors.torch.save(solid))
    write_json(
        folder / "architecture.json",
        {
            "name": NAME,
            "sizes": asdict(sizes),
            "preprocessing": {"pixels": PIXELS, "resample": "box", "colours": "RGB"},
            "words": list(words),
            "answers": list(answers),
            "data_fingerprint": data_fingerprint,
            "serving": {"instances_max": INSTANCES_MAX},
        },
    )


def load(folder: Path) -> Trained:
    """Build the network and load its weights, ready to answer. Raises BadInput."""
    try:
        record = json.loads((folder / "architecture.json").read_text())
        if (record["name"], record["preprocessing"]["pixels"]) != (NAME, PIXELS):
            raise BadInput(
                f"{folder} holds another kind of model (={record['name']})", expected=NAME
            )
        network = Network(Sizes(**record["sizes"]))
        weights = safetensors.torch.load((folder / "weights.safetensors").read_bytes())
        network.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            f"no whole model in {folder}: {type(error).__name__}: {error}",
            expected="the output of model.train",
        ) from error
    network.eval()
    words, answers = tuple(record["words"]), tuple(record["answers"])
    return Trained(network, words, answers, record["data_fingerprint"])
