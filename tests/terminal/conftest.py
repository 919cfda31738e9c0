"""A place `memory` that serves, its ledger, and the commands' way to it; no Prefect server."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deployments import Health, Part, ledger
from deployments.releases import folder as releases
from deployments.releases.signing import new_key
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
MODULES = ("command", "status", "history", "show", "diff", "plan", "repair")
OURS, STRANGER = new_key(), new_key()
LINEAGE = {
    "key": "4f2a", "model_code": "a" * 64, "commit": "b" * 40, "dirty": "true", "seed": "7",
    "dataset": "generate://detail", "data_fingerprint": f"sha256:{'c' * 64}",
    "steps_max": "500", "wandb_run_id": "none",
    "config": '{"model": {"learning_rate": 0.004}, "name": "local"}',
    "packages": '{"torch": "2.13.0", "numpy": "2.1"}',
}  # fmt: skip


@cache
def sealed(version, key):
    """Digest and files of a release with only the version's name in it."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "weights").write_text(version)
        digest = releases.seal(Path(folder), key)
        return digest, {path.name: path.read_bytes() for path in Path(folder).iterdir()}


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
        keys = folder / "root/keys"
        keys.mkdir(parents=True, mode=0o700)
        (keys / "release.pem").touch(mode=0o600)
        (keys / "release.pem").write_bytes(OURS.pem)
        self.key = OURS.public.fingerprint
        for module in MODULES:
            monkeypatch.setattr(f"flows.terminal.{module}.connect", lambda _config: self.place)
        for version in ("v1", "v2", "v3"):
            self.register(version)

    def register(self, version, accuracy=0.9, signed_by=None, lineage=LINEAGE, key=OURS):
        """`key` signs it; `signed_by` is what the ledger says, if that is something else."""
        digest, files = sealed(version, key)
        for name, data in files.items():
            self.cloud.objects[f"releases/{digest}/{name}"] = data
        event = Registered(
            version=version, digest=digest, accuracy=accuracy,
            families={"colour": accuracy}, reasons=("accuracy 90 % >= 80 %",),
            lineage=lineage,
            signed_by=key.public.fingerprint if signed_by is None else signed_by,
        )  # fmt: skip
        self.write(event)

    def digest(self, version):
        return self.state.version(version).digest

    def stored(self, version):
        """The keys of the files of a version's release."""
        prefix = f"releases/{self.digest(version)}/"
        return [key for key in self.cloud.objects if key.startswith(prefix)]

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
