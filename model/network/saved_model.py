"""Save and load a trained model: weights.safetensors and architecture.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from model.dataset import vocabulary
from model.dataset.images import PIXELS
from model.dataset.preprocessing import PlainPreprocessor, Preprocessor
from model.network.network import Network, Sizes
from model.pretrained import network as pretrained
from model.pretrained import saved_model as over_encoder
from model.program.errors import BadInput
from model.program.files import write_json, write_whole

if TYPE_CHECKING:  # a server reads no data sets: without their libraries it starts sooner
    from model.dataset.manifest import DataSet, Split
    from model.program.settings import Hyperparameters

NAME = "arr-coc"
INSTANCES_MAX = 64


@dataclass(frozen=True)
class TrainedModel:
    """A network with all that is needed to ask it a question.

    `words` is the vocabulary of a plain network; one over an encoder has a tokenizer instead.
    """

    network: Network | pretrained.PretrainedNetwork
    preprocessor: Preprocessor
    answers: tuple[str, ...]
    data_fingerprint: str
    words: tuple[str, ...] = ()


def save_plain(
    folder: Path, sizes: Sizes, weights: Mapping[str, Tensor], words: Sequence[str],
    answers: Sequence[str], data_fingerprint: str,
) -> None:  # fmt: skip
    """Write both files of a network without an encoder."""
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


def untrained(chosen: "Hyperparameters", data: "DataSet", train: "Split") -> TrainedModel:
    """An untrained network for a data set, its parameters drawn from torch's random state."""
    if chosen.profile == "vqa":
        from model.pretrained.answers import most_frequent

        frozen, own = over_encoder.open_encoder(Path(chosen.encoder), chosen.encoder_version)
        answers = most_frequent(train, chosen.answers_max)
        sizes = pretrained.Sizes(chosen.width, len(answers), chosen.ablation)
        network = pretrained.PretrainedNetwork(sizes, frozen, own)
        return TrainedModel(network, own, answers, data.fingerprint)
    words, answers = tuple(vocabulary.build(train.questions)), data.answers
    sizes = Sizes(chosen.width, len(words) + 1, len(answers), chosen.ablation, chosen.glance)
    return TrainedModel(
        Network(sizes), PlainPreprocessor(words), answers, data.fingerprint, words
    )


def save(folder: Path, subject: TrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Write a trained model with these weights, each file whole."""
    network, answers, fingerprint = subject.network, subject.answers, subject.data_fingerprint
    if isinstance(network, Network):
        save_plain(folder, network.sizes, weights, subject.words, answers, fingerprint)
    else:
        over_encoder.save(folder, network, weights, answers, fingerprint)


def load(folder: Path) -> TrainedModel:
    """Build the network and load its weights, ready to answer. Raises BadInput."""
    try:
        record = json.loads((folder / "architecture.json").read_text())
        network, preprocessor = _build(folder, record)
        weights = safetensors.torch.load((folder / "weights.safetensors").read_bytes())
        network.load_state_dict(weights)
        answers, words = tuple(record["answers"]), tuple(record.get("words", ()))
        fingerprint = record["data_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            f"no complete model in {folder}: {type(error).__name__}: {error}",
            expected="the output of model.train",
        ) from error
    network.eval()
    return TrainedModel(network, preprocessor, answers, fingerprint, words)


def _build(
    folder: Path, record: Mapping[str, Any]
) -> tuple[Network | pretrained.PretrainedNetwork, Preprocessor]:
    """The network that architecture.json describes, before its weights are loaded."""
    if record["name"] == over_encoder.NAME:
        return over_encoder.build(folder, record)
    if (record["name"], record["preprocessing"]["pixels"]) != (NAME, PIXELS):
        raise BadInput(
            f"{folder} holds another kind of model (={record['name']})",
            expected=f"{NAME} or {over_encoder.NAME}",
        )
    return Network(Sizes(**record["sizes"])), PlainPreprocessor(tuple(record["words"]))
