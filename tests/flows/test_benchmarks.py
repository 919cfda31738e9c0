"""A version that is trained on one data set must also pass the benchmarks beside it."""

import json

import pytest
import yaml

from deployments.releases import folder as releases
from flows.retrain import retrain
from policy.config import load_config
from policy.errors import GateFailed


@pytest.fixture
def measured(world):
    """Retrain in a world that scores these accuracies; the main data set is called vqav2."""
    main = world.config.dataset.version
    versions = {"vqav2": main, "gqa": f"sha256:{'a' * 64}", "textvqa": f"sha256:{'b' * 64}"}
    limits = {"vqav2": 0.70, "gqa": 0.65, "textvqa": "reported"}
    record = yaml.safe_load(world.path.read_text())
    record["gates"]["accuracy_min"] = record["gates"]["family_accuracy_min"] = 0.0
    record["gates"]["benchmarks"] = [
        {
            "name": name,
            "dataset": {**record["dataset"], "version": versions[name]},
            "accuracy_above": limits[name],
        }
        for name in versions
    ]
    world.path.write_text(yaml.safe_dump(record))
    world.config = load_config(world.path)
    scored = []

    def run(accuracies):
        plain = world.jobs.run

        def scoring(program, config, inputs, output, **more):
            plain(program, config, inputs, output, **more)
            if program != "model.evaluate":
                return
            (name,) = (n for n, v in versions.items() if v[7:23] in inputs["data"])
            scored.append(name)
            path = output / "scores.json"
            told = {"accuracy": accuracies[name], "data_fingerprint": versions[name]}
            path.write_text(json.dumps(json.loads(path.read_text()) | told))

        world.jobs.run = scoring
        return retrain(config=str(world.path), seed=1), scored

    return run


def test_what_is_above_its_limit_passes_and_what_is_reported_is_told(measured, world):
    version, scored = measured({"vqav2": 0.71, "gqa": 0.66, "textvqa": 0.12})
    assert scored == ["vqav2", "gqa", "textvqa"], "each data set once"
    registered = world.ledger.version(version).registered
    assert registered.accuracy == 0.71
    assert [reason for reason in registered.reasons if " on " in reason] == [
        "accuracy on vqav2 0.71 > 0.7",
        "accuracy on gqa 0.66 > 0.65",
        "accuracy on textvqa 0.12 (reported)",
    ]
    files = releases.read_manifest(world.store, registered.digest)
    assert {f"benchmarks/{name}.json" for name in ("vqav2", "gqa", "textvqa")} < files.keys()


def test_as_much_as_a_limit_is_not_more_than_it(measured, world):
    with pytest.raises(GateFailed, match=r"accuracy on gqa 0\.65 <= 0\.65"):
        measured({"vqav2": 0.71, "gqa": 0.65, "textvqa": 0.12})
    assert not world.ledger.versions
