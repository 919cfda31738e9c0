"""A Prefect server for the session, and worlds: the place `memory` with fakes of programs.

`world` has a clock that nobody waits for; `live` has the real one, for what people do.
"""

import json
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
import yaml

from deployments import command, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import VARIABLE, signing_key, trusted
from deployments.releases.signing import new_key
from deployments.store import open_store
from policy.config import load_config
from policy.errors import JobFailed, ReleaseError
from policy.records import Registered
from policy.rollout.plans import plan_for
from policy.rollout.requests import Request
from tasks import places
from tasks.rollout.controller import drive
from tests.places.buckets import BUCKET, s3
from tests.places.memory import MemoryCloud, Settings
from tests.policy.worlds import Behaviour

LOCAL = Path(__file__).parents[2] / "deployments/local.yaml"
BROKEN = Behaviour(errors=0.5)
OWN_KEY = new_key()
SLOW = {"deploy_s": 30, "order_s": 2, "metrics_late_s": 5, "per_s": 20}
QUICK = {"deploy_s": 0.05, "order_s": 0, "metrics_late_s": 0, "per_s": 400}


@pytest.fixture(scope="session", autouse=True)
def prefect_server():
    from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=280),
        temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}),
    ):
        yield


class FakeJobs:
    """Writes what each program would; `accuracy` is that of the next model."""

    def __init__(self, store, fingerprint):
        self.store, self.fingerprint = store, fingerprint
        self.accuracy, self.ran, self.fail, self.fail_for = 0.95, [], "", "nothing"

    def run(self, job, on_progress):
        self.ran.append(job.program)
        if job.program == self.fail:
            raise JobFailed(f"{job.program} ended with exit code 2", exit_code=2)
        if self.fail_for in json.dumps(job.config):
            raise JobFailed(f"{job.program} cannot train {self.fail_for}", exit_code=1)
        on_progress({"phase": job.program, "done": 1, "of": 1})
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder)
            (output / "done").write_text(job.key)
            self.write(job, output)
            self.store.upload(output, job.output)

    def cancel(self, key):
        pass

    def write(self, job, output):
        if job.program == "model.train":
            packages = {"packages": {}, "data_fingerprint": self.fingerprint}
            weights = f"{job.config['seed']} {self.accuracy}"
            (output / "weights.safetensors").write_text(weights)
            (output / "curves.csv").write_text("step,split,loss,accuracy\n1,train,1.0,0.5\n")
            (output / "training.json").write_text(json.dumps(packages))
        if job.program == "model.evaluate":
            self.score(output)

    def score(self, output):
        right = [1.0] * round(1000 * self.accuracy) + [0.0] * round(1000 * (1 - self.accuracy))
        ids = [str(n) for n in range(1000)]
        frame = pd.DataFrame({"question_id": ids, "correct": right})
        frame.to_parquet(output / "predictions.parquet")
        (output / "requests.jsonl").write_text(REQUESTS)
        score = {"questions": 1000, "accuracy": self.accuracy}
        scores = {**score, "data_fingerprint": self.fingerprint, "families": {"all": score}}
        (output / "scores.json").write_text(json.dumps(scores))


REQUESTS = json.dumps({"instance": {"q": 1}, "answer": "red", "family": "all"}) + "\n"
REQUESTS *= 30


class LiveCloud(MemoryCloud):
    """The cloud by the clock on the wall."""

    def now(self):
        return datetime.now(UTC)


class LiveClock:
    def __init__(self, cloud):
        self.cloud, self.last = cloud, time.monotonic()

    def now(self):
        return datetime.now(UTC)

    def monotonic(self):
        return time.monotonic()

    def sleep(self, seconds):
        time.sleep(max(seconds, 0.02))
        self.cloud.pass_time(time.monotonic() - self.last)
        self.last = time.monotonic()


class World:
    """One place with its configuration, and the flows' way to it."""

    def __init__(self, folder, monkeypatch, root=None, *, live=False, **settings):
        self.root, self.path = folder / "root", folder / "local.yaml"
        can = frozenset({"pin", "fallback", "empty", "mirror"})
        chosen = Settings(**{**(QUICK if live else SLOW), "can": can, **settings})
        self.cloud = (LiveCloud if live else MemoryCloud)(chosen, verify=self.verify)
        self.record = yaml.safe_load(LOCAL.read_text())
        self.record |= {"root": str(root or self.root), "scratch": str(folder / "scratch")}
        plan = {"replay_per_s": 0, "little_traffic": "wait", "analyses": []}
        plan |= {"bake_s": 0.3, "look_s": 0.05} if live else {"bake_s": 20, "look_s": 2}
        if root is not None:
            monkeypatch.setenv(VARIABLE, OWN_KEY.pem.decode())
            public = OWN_KEY.public.pem.decode()
            self.record["signing"] = {"private_key": "environment", "trusted": [public]}
        self.configure(rollout=plan, watch={"s": 0, "requests_min": 0})
        self.store = open_store(self.config.root, Path(self.config.scratch))
        self.jobs = FakeJobs(self.store, self.config.dataset.version)
        self.place = self.connect(folder / "scratch", live)
        monkeypatch.setattr(places, "_PLACES", {})
        monkeypatch.setattr(places, "connect", lambda _config: self.place)

    def connect(self, scratch, live):
        scratch.mkdir(exist_ok=True)
        place = replace(self.cloud.place(scratch), store=self.store, jobs=self.jobs)
        return replace(place, clock=LiveClock(self.cloud)) if live else place

    def configure(self, rollout=None, **sections):
        """Change settings of the rollout, or of sections inside it."""
        self.record["rollout"] |= rollout or {}
        for name, values in sections.items():
            self.record["rollout"][name] |= values
        self.write()

    def write(self):
        self.path.write_text(yaml.safe_dump(self.record, sort_keys=False))
        self.config = load_config(self.path)

    def verify(self, release):
        """What every real place does before it serves a release."""
        scratch = Path(self.config.scratch) / "serving"
        try:
            releases.fetch(self.store, release, scratch, trusted(self.config))
        except ReleaseError as error:
            return str(error)
        return ""

    @property
    def production(self):
        return self.cloud.endpoints["production"]

    @property
    def ledger(self):
        return ledger.read(self.store)

    def events(self):
        return [record.event for record in ledger.records(self.store)]

    def rollouts(self, version):
        """The successive records of the rollouts of `version`."""
        found = (getattr(event, "rollout", None) for event in self.events())
        return [rollout for rollout in found if rollout and rollout.version == version]

    def break_version(self, version, behaviour=BROKEN):
        self.cloud.behaviours[version] = behaviour
        return version

    def register(self, version):
        """Enter a version past training and gate, with a signed release of its own."""
        folder = self.root / "made" / version
        folder.mkdir(parents=True)
        self.jobs.score(folder)
        (folder / "lineage.json").write_text(json.dumps({"version": version}))
        digest = releases.seal(folder, signing_key(self.config))
        releases.publish(self.store, folder, digest, trusted(self.config))
        event = Registered(
            version=version, digest=digest, accuracy=0.95, families={}, reasons=(), lineage={}
        )
        ledger.append(self.store, lambda _state: event, by="a test")
        return version

    def ask(self, kind, version="", by="a test", why="why", id="", endpoint="production"):
        """Make a request as anybody does; returns its answer."""
        request = Request(
            id=id or f"{kind}-{version}-{self.ledger.number}", kind=kind, endpoint=endpoint,
            by=by, why=why, version=version, plan=plan_for(self.config, endpoint),
        )  # fmt: skip
        return command.make(self.place, request)

    def serve(self, version):
        """Register a version and make it stable in production, without any flow."""
        self.register(version)
        self.roll(version)
        return version

    def roll(self, version, until=None):
        """Drive a rollout without Prefect, to its end or until it is in a phase."""
        id = self.ask("rollout", version).request.id

        def reached(state):
            rollout = state.endpoint("production").rollout
            return state.requests[id].decided or (until and rollout.phase == until)

        return drive(self.place, "production", reached, by="a test").requests[id]


@pytest.fixture
def bucket_root(monkeypatch):
    """A root of its own in a bucket, behind the wire of S3."""
    for name, value in s3().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


@pytest.fixture
def live(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch, live=True)
