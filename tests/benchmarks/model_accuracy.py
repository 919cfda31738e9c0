"""The profiles demo and full on fresh questions and fresh seeds.

    python -m tests.benchmarks.model_accuracy [demo|full] [SEEDS] [ABLATION …]

Every seed also draws its own data set. Targets of demo, complete and with uniform detail: at
least 0.95 over all and 0.90 in every family, 0.20 above uniform-lod, within 70 processor
seconds of training. Of full (model/profiles/full; some ten minutes a seed): 0.95 over all,
0.99 over the questions about one object, 0.90 over those about several.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from model.generated import generator

REPOSITORY = Path(__file__).parents[2]
SEEDS, FIRST_SEED = 3, 101
ADDRESS = {
    "demo": "generate://detail?images=8000&questions=16&seed={}",
    "full": "generate://sort-of-clevr?images=20000&questions=18&seed={}",
}
ABLATIONS = {"demo": ["none", "uniform-lod"], "full": ["none"]}
SEVERAL = ("closest", "furthest", "count")  # families of full about several objects


def main(profile: str = "demo", seeds: str = str(SEEDS), *ablations: str) -> None:
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for seed in range(FIRST_SEED, FIRST_SEED + int(seeds)):
            data = Path(name) / f"data-{seed}"
            generator.generate(ADDRESS[profile].format(seed), data)
            for ablation in ablations or ABLATIONS[profile]:
                run = Path(name) / f"{ablation}-{seed}"
                scores = _one(data, run, settings(profile, seed, ablation))
                found.setdefault(ablation, []).append(scores["accuracy"])
                print(f"seed {seed}, {ablation}: {_words(profile, scores)}", flush=True)
    for ablation, accuracies in found.items():
        print(f"{ablation}: {min(accuracies):.3f} to {max(accuracies):.3f}")


def _one(data: Path, run: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate by the programs; the scores, with what the training cost."""
    _program(run, "train", chosen, data=data)
    compute = {"compute": chosen["compute"] | {"processes": 1}}
    _program(run, "evaluate", compute, data=data, model=run / "train")
    spent = json.loads((run / "train/training.json").read_text())["processor_seconds"]
    return json.loads((run / "evaluate/scores.json").read_text()) | {"spent": spent}


def _words(profile: str, scores: dict[str, Any]) -> str:
    families = {name: score["accuracy"] for name, score in scores["families"].items()}
    each = ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in families.items())
    words = f"{scores['accuracy']:.3f} on {scores['questions']} questions"
    if profile == "full":
        one = _over(
            [score for name, score in scores["families"].items() if name not in SEVERAL]
        )
        several = _over([scores["families"][name] for name in SEVERAL])
        words += f", about one object {one:.4f}, about several {several:.3f}"
    return f"{words}, {scores['spent']:.0f} s; {each}"


def _over(scores: list[dict[str, Any]]) -> float:
    right = sum(score["accuracy"] * score["questions"] for score in scores)
    return right / sum(score["questions"] for score in scores)


def _program(run: Path, name: str, config: dict, **inputs: Path) -> None:
    run.mkdir(exist_ok=True)
    path = run / f"{name}.json"
    path.write_text(json.dumps(config))
    folders = [f"--{key}={value}" for key, value in inputs.items()]
    command = [sys.executable, "-m", f"model.{name}", f"--config={path}", *folders]
    subprocess.run(
        [*command, f"--output={run / name}"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def settings(profile: str, seed: int, ablation: str) -> dict[str, Any]:
    """The settings of one training, in one process so that its seconds are all of them."""
    chosen = demo() if profile == "demo" else full()
    chosen["model"]["hyperparameters"]["ablation"] = ablation
    chosen["compute"]["processes"] = 1
    return chosen | {"seed": seed}


def full() -> dict[str, Any]:
    return json.loads((REPOSITORY / "model/profiles/full/train.json").read_text())


def demo() -> dict[str, Any]:
    """What `make demo` trains with: the sections of deployments/local.yaml."""
    whole = yaml.safe_load((REPOSITORY / "deployments/local.yaml").read_text())
    names = ("model", "compute", "checkpointing", "tracking")
    chosen: dict[str, Any] = {name: whole[name] for name in names}
    chosen["tracking"]["mode"] = "disabled"
    return chosen


if __name__ == "__main__":
    main(*sys.argv[1:])
