"""A place `memory` that serves, its ledger, and the commands' way to it; no Prefect server."""

from dataclasses import replace

import pytest

from deployments import Health, Part, ledger
from deployments.releases.keys import signing_key
from flows import __main__ as terminal
from policy.config import parse_config
from policy.records import Registered
from policy.rollout.requests import Request
from tasks.rollout.controller import drive
from tests.places.memory import MemoryCloud, Settings
from tests.policy.configurations import changed

SETTINGS = Settings(
    deploy_s=20, order_s=1, metrics_late_s=0, can=frozenset({"pin", "fallback", "empty"})
)
MODULES = ("command", "status", "history", "show", "diff", "plan")
LINEAGE = {
    "key": "4f2a", "model_code": "a" * 64, "commit": "b" * 40, "dirty": "true", "seed": "7",
    "dataset": "generate://detail", "data_fingerprint": f"sha256:{'c' * 64}",
    "steps_max": "500", "wandb_run_id": "none",
    "config": '{"model": {"learning_rate": 0.004}, "name": "local"}',
    "packages": '{"torch": "2.13.0", "numpy": "2.1"}',
}  # fmt: skip


class World:
    """v1, v2 and v3 are registered and signed by the trusted key."""

    endpoint = "production"

    def __init__(self, folder, monkeypatch):
        self.file, self.scratch = folder / "local.yaml", folder / "scratch"
        self.file.write_text(
            changed(
                root=str(folder / "root"),
                scratch=str(self.scratch),
                rollout__smoke_requests=0,
                rollout__little_traffic="wait",
                rollout__replay_per_s=0,
            )
        )
        self.config = parse_config(self.file.read_text(), "a test")
        self.cloud = MemoryCloud(SETTINGS)
        self.parts = [Part("cloud", "answers")]
        self.place = replace(
            self.cloud.place(self.scratch), health=lambda: Health(tuple(self.parts))
        )
        self.key = signing_key(self.config).public.fingerprint
        for module in MODULES:
            monkeypatch.setattr(f"flows.terminal.{module}.connect", lambda _config: self.place)
        for version in ("v1", "v2", "v3"):
            self.register(version, signed_by=self.key)

    def register(self, version, accuracy=0.9, signed_by="", lineage=LINEAGE):
        event = Registered(
            version=version, digest=version[-1] * 64, accuracy=accuracy,
            families={"colour": accuracy}, reasons=("accuracy 90 % >= 80 %",),
            lineage=lineage, signed_by=signed_by,
        )  # fmt: skip
        self.write(event)

    def write(self, event, by="a test"):
        clock = self.place.clock
        ledger.append(self.place.store, lambda _state: event, by=by, now=clock.now)

    @property
    def state(self):
        return ledger.read(self.place.store)

    @property
    def rollout(self):
        return self.state.endpoint(self.endpoint).rollout

    def ask(self, *words):
        """`python -m flows WORDS CONFIG`; the exit code."""
        return terminal.main([*words, str(self.file)])

    def serve(self, version):
        assert self.ask("rollout", version, "--why", "a test", "--by", "ada") == 0

    def drive_until(self, true):
        return drive(self.place, self.endpoint, lambda _state: true(), by="a flow")

    def request(self, version, id):
        from flows.terminal.command import request_of

        made = request_of(self.config, "rollout", self.endpoint, "ada", "a test", version)
        return Request.model_validate({**made.model_dump(), "id": id})


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


@pytest.fixture
def serving(world, capsys):
    """v1 serves."""
    world.serve("v1")
    capsys.readouterr()
    return world


@pytest.fixture
def walking(serving):
    """v2 has a share of the requests, and whoever drove it has died."""
    from deployments import command

    command.make(serving.place, serving.request("v2", "walk"))
    serving.drive_until(lambda: serving.cloud.endpoints["production"].weights.get("v2"))
    return serving
