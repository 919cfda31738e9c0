"""A Prefect server for the session, and a place of fakes: each is a protocol in a few lines."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from deployments import Place, Reply, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import signing_key, trusted
from deployments.store import open_store
from policy.config import load_config
from policy.counts import LATENCY_EDGES_S, Counts, Labelled
from policy.errors import EndpointError, JobFailed
from policy.ledger import Registered, RolloutChanged
from policy.rollout.record import Phase, start

LOCAL = Path(__file__).parents[2] / "deployments/local.yaml"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
TASKS = ("training", "release", "rollout", "approval", "report", "reproduction")


@pytest.fixture(scope="session", autouse=True)
def prefect_server():
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}),
    ):
        yield


class FakeJobs:
    """Writes what each program would; `accuracy` is that of the next model."""

    def __init__(self):
        self.accuracy, self.ran, self.fail, self.fail_for = 0.95, [], "", "nothing"

    def run(self, program, config, inputs, output, *, on_progress=lambda r: None):
        self.ran.append(program)
        if program == self.fail:
            raise JobFailed(f"{program} ended with exit code 2", exit_code=2)
        if self.fail_for in json.dumps(config):
            raise JobFailed(f"{program} cannot train {self.fail_for}", exit_code=1)
        output.mkdir(parents=True, exist_ok=True)
        on_progress({"phase": program, "done": 1, "of": 1})
        if program == "model.train":
            fingerprint = config.get("fingerprint", "sha256:x")
            packages = {"packages": {}, "data_fingerprint": fingerprint}
            (output / "weights.safetensors").write_text(f"{config['seed']} {self.accuracy}")
            (output / "curves.csv").write_text("step,split,loss,accuracy\n1,train,1.0,0.5\n")
            (output / "training.json").write_text(json.dumps(packages))
        if program == "model.evaluate":
            self._scores(output)

    def _scores(self, output):
        right = [1.0] * round(1000 * self.accuracy) + [0.0] * round(1000 * (1 - self.accuracy))
        ids = [str(n) for n in range(1000)]
        frame = pd.DataFrame({"question_id": ids, "correct": right})
        frame.to_parquet(output / "predictions.parquet")
        line = json.dumps({"instance": {"q": 1}, "answer": "red", "family": "all"})
        (output / "requests.jsonl").write_text(f"{line}\n" * 30)
        score = {"questions": 1000, "accuracy": self.accuracy}
        scores = {**score, "data_fingerprint": "sha256:x", "families": {"all": score}}
        (output / "scores.json").write_text(json.dumps(scores))


class FakeEndpoint:
    """Serves in memory; every look at the counters answers 100 more requests by weight."""

    def __init__(self, name):
        self.name, self.split, self.servers, self.seen = name, {}, {}, []
        self.broken, self.counts, self.die_at = set(), Counter(), None

    def deploy(self, release):
        self.servers.setdefault(release.version, release.digest)

    def deployed(self):
        return list(self.servers)

    def ready(self, version):
        if f"{version} never ready" in self.broken:
            raise EndpointError(f"{version} gave up")
        return version in self.servers

    def weights(self):
        return dict(self.split)

    def mirrored(self):
        return {}

    def set_weights(self, percent, fallback=None):
        assert fallback is None or fallback in self.servers
        assert sum(percent.values()) == (100 if percent else 0)
        assert set(percent) <= set(self.servers), "weight on a version that is not there"
        if self.die_at in percent.values():
            self.die_at = None
            raise KeyboardInterrupt("the controller is killed here")
        self.split = dict(percent)
        self.seen.append(dict(percent))

    def send(self, version, instances, timeout_s=10):
        return Reply(200, version or "", ({"answer": "red"},), 0.01)

    def undeploy(self, version):
        assert not self.split.get(version), "undeployed while it has weight"
        self.servers.pop(version, None)

    def read(self, version):
        for name, weight in self.split.items():
            self.counts[name] += weight
        seen = self.counts[version]
        wrong = seen // 2 if version in self.broken else 0
        return seen, wrong


class FakeTelemetry:
    def __init__(self, endpoints):
        self.endpoints = endpoints

    def counts(self, endpoint, version):
        seen, wrong = self.endpoints[endpoint].read(version)
        latency = (0, 0, 0, seen, *[0] * (len(LATENCY_EDGES_S) - 3))
        return Counts(requests=seen, errors=wrong, latency=latency)

    def labels(self, endpoint, version):
        seen, wrong = self.endpoints[endpoint].read(version)
        return Labelled(labels=seen, correct=seen - wrong)


class World:
    """One place of fakes with its configuration, and the flows' way to it."""

    def __init__(self, folder, monkeypatch):
        self.path = folder / "local.yaml"
        self.jobs = FakeJobs()
        self.endpoints = {name: FakeEndpoint(name) for name in ("staging", "production")}
        text = LOCAL.read_text().replace("root: .arr-coc", f"root: {folder / 'root'}")
        for slow, quick in (
            ("bake_s: 7", "bake_s: 0.3"),
            ("look_s: 0.5", "look_s: 0.05"),
            ("replay_per_s: 20", "replay_per_s: 0"),
            ("block_requests: 5", "block_requests: 100000"),
            ("  s: 5", "  s: 0"),
        ):
            assert slow in text
            text = text.replace(slow, quick)
        self.path.write_text(text)
        self.config = load_config(self.path)
        self.root = folder / "root"
        self.store = open_store(self.config.root)
        telemetry = FakeTelemetry(self.endpoints)
        place = Place(self.jobs, self.store, telemetry, self.endpoints)
        for module in TASKS:
            monkeypatch.setattr(f"tasks.{module}.connect", lambda _config: place)

    @property
    def production(self):
        return self.endpoints["production"]

    @property
    def ledger(self):
        return ledger.read(self.store)

    def register(self, version):
        """Enter a version past training and gate, with a signed release of its own."""
        folder = self.root / "made" / version
        folder.mkdir(parents=True)
        line = json.dumps({"instance": {"q": 1}, "answer": "red", "family": "all"})
        (folder / "requests.jsonl").write_text(f"{line}\n" * 30)
        (folder / "lineage.json").write_text(json.dumps({"version": version}))
        digest = releases.seal(folder, signing_key(self.config))
        releases.publish(self.store, folder, digest, trusted(self.config))
        event = Registered(
            version=version, digest=digest, accuracy=0.95, families={}, reasons=(), lineage={}
        )
        ledger.append(self.store, lambda _state: event, by="a test")
        return version

    def serve(self, version):
        """Register a version and make it stable in production, without any flow."""
        before = self.ledger.endpoint("production").stable
        self.register(version)
        new = start("r", "production", version, before, self.config.rollout, "a test", NOW)
        done = RolloutChanged(rollout=new.model_copy(update={"phase": Phase.DONE}))
        ledger.append(self.store, lambda _state: done, by="a test")
        digest = self.ledger.version(version).registered.digest
        self.production.servers, self.production.split = {version: digest}, {version: 100}
        return version


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


@pytest.fixture
def make_world(monkeypatch):
    """More worlds than one; the flows reach the one made last."""

    def make(folder):
        folder.mkdir()
        return World(folder, monkeypatch)

    return make
