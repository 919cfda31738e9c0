"""A whole stack of its own for a test: real servers on free ports, in a folder of its own."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from deployments import Release, connect, ledger
from deployments.local.layout import layout_of
from deployments.local.stack.login import client as logged_in
from deployments.local.stack.login import read_login
from deployments.local.supervisor.processes import descendants
from deployments.local.supervisor.programs import Supervisor
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from deployments.secrets import PREFECT_LOGIN
from policy.config import Config, load_config
from policy.ledger import EndpointState, Ledger
from policy.rollout.record import Phase
from policy.rollout.requests import Answer

REPOSITORY = Path(__file__).parents[2]
FINGERPRINT = "sha256:64815d50ef06a7f3b0825f97d6193940ab5348e23f091db096ba39760f0b9e79"
SMALL = {
    "dataset.uri": "generate://detail?images=300&questions=6&seed=7",
    "dataset.questions_min": 20,
    "model.steps_max": 12,
    "compute.processes": 1,
    "checkpointing.every_s": 0.5,
    "tracking.mode": "disabled",
    "gates.accuracy_min": 0.0,
    "gates.family_accuracy_min": 0.0,
    "gates.questions_min": 20,
    "gates.non_inferiority_margin": 1.0,
    "rollout.bake_s": 3,
    "rollout.analyses": [],
    "rollout.limits.accuracy_min": 0.0,
    "rollout.judge.accuracy_margin": 0.9,
    "rollout.watch.s": 1,
}
SETTLED = (Phase.DONE, Phase.ROLLED_BACK)


class Stack:
    """`deployments/local.yaml` made small, and what the tests do with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = iter(free_ports(10))
        self._record = self._made_small()
        self.path = self.write("local.yaml")
        self.config: Config = load_config(self.path)
        self.place = connect(self.config)
        self.api = f"http://127.0.0.1:{self._record['local']['prefect_port']}/api"

    @property
    def env(self) -> dict[str, str]:
        """What another shell has: `eval "$(make -s env)"`, with a home of its own."""
        told = {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.root / "home")}
        if layout_of(self.config).login.exists():
            told[PREFECT_LOGIN] = read_login(self.config)
        return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")} | told

    def _made_small(self) -> dict[str, Any]:
        record = yaml.safe_load((REPOSITORY / "deployments/local.yaml").read_text())
        record |= {"root": str(self.root / "r"), "scratch": str(self.root / "s")}
        record["dataset"]["version"] = FINGERPRINT
        record["local"] |= {
            "prefect_port": next(self.ports),
            "metrics_port": next(self.ports),
            "endpoints": {name: {"port": next(self.ports)} for name in record["endpoints"]},
        }
        return _changed(record, SMALL)

    def write(self, name: str, **changes: Any) -> Path:
        """Write a variant of the configuration: {section__setting: value}."""
        dotted = {path.replace("__", "."): value for path, value in changes.items()}
        path = self.root / name
        text = yaml.safe_dump(_changed(self._record, dotted), sort_keys=False)
        path.write_text(text)
        return path

    def run(self, *command: str, check: bool = True, timeout: float = 180):
        """Run a command of the project from the checkout, as another shell would."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, env=self.env,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def deploy(self, name: str, *, watch=True, check=False, timeout=300, **parameters):
        command = ["prefect", "deployment", "run", name]
        for key, value in parameters.items():
            command += ["--param", f"{key}={json.dumps(value)}"]
        watching = ["--watch"] if watch else []
        return self.run(*command, *watching, check=check, timeout=timeout)

    def up(self, check: bool = True):
        return self.run(
            "deployments.local", "up", str(self.path), "--no-deploy", timeout=300, check=check
        )

    def down(self):
        return self.run("deployments.local", "down", str(self.path))

    def ledger(self) -> Ledger:
        return ledger.read(self.place.store)

    def production(self) -> EndpointState:
        return self.ledger().endpoint("production")

    def weights(self) -> dict[str, int]:
        return dict(self.place.endpoint("production").observe().weights)

    def reaches(self, weight: int, version: str, limit_s: float = 120) -> None:
        """Wait until a version really has this share of production's traffic."""
        until(
            lambda: self.weights().get(version) == weight, f"{version} at {weight} %", limit_s
        )

    def ends(self, version: str, limit_s: float = 180) -> EndpointState:
        """Wait until no rollout is under way and `version` was the last; how it stands then."""

        def ended() -> bool:
            rollout = self.production().rollout
            return bool(rollout and rollout.version == version and rollout.phase in SETTLED)

        until(ended, f"the rollout of {version} ends", limit_s)
        return self.production()

    def answer(self, version: str) -> Answer:
        """How the last request for a version on production stands."""
        found = [
            answer
            for answer in self.ledger().requests.values()
            if answer.request.kind == "rollout"
            and (answer.request.version, answer.request.endpoint) == (version, "production")
        ]
        return max(found, key=lambda answer: answer.number)

    def runs(self, *states: str, flow: str = "") -> list[dict[str, Any]]:
        """Runs in these states, newest first, as Prefect's server has them."""
        body: dict[str, Any] = {"sort": "EXPECTED_START_TIME_DESC"}
        body |= {"flow_runs": {"state": {"type": {"any_": [*states]}}}} if states else {}
        body |= {"flows": {"name": {"any_": [flow]}}} if flow else {}
        with logged_in(self.config) as client:
            return client.post("/flow_runs/filter", json=body, timeout=30).json()

    def newest(self, flow: str) -> str:
        """The id of the newest run of a flow that is not only planned by a schedule."""
        found = [run for run in self.runs(flow=flow) if not run["auto_scheduled"]]
        return max(found, key=lambda run: run["created"])["id"]

    def state(self, run: str) -> str:
        return self.get(f"/flow_runs/{run}")["state_name"]

    def get(self, path: str) -> Any:
        """What Prefect's API answers at this path."""
        with logged_in(self.config) as client:
            return client.get(path, timeout=30).json()

    def copy_of(self, version: str, name: str) -> str:
        """Register a copy of a release under a digest of its own."""
        from tasks.release import enter, publish, read_scores

        digest = self.ledger().version(version).digest
        release, keys = Release(version, digest), trusted(self.config)
        folder = releases.fetch(self.place.store, release, self.root / name, keys)
        (folder / "lineage.json").write_text(json.dumps({"copy": name}))
        published = publish(self.config, folder)
        return enter(self.config, published, read_scores(folder), ("a test",), {}, "a test")

    def ask(self) -> int:
        """One question to production as a user would ask it; the status, 0 if none came."""
        instances = json.loads(self.question())["instances"]
        return self.place.endpoint("production").ask(None, instances).status

    def question(self) -> str:
        """The body of a request with one question, as a client sends it."""
        lines = next(self.root.glob("r/releases/*/requests.jsonl")).read_text().splitlines()
        return json.dumps({"instances": [json.loads(lines[0])["instance"]]})

    def processes(self, *words: str) -> list[psutil.Process]:
        """Living processes of this stack whose command line has all `words`."""
        found = []
        for process in descendants(Supervisor(layout_of(self.config)).url):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                found.append(process)
        return found

    def kill(self, *words: str) -> int:
        """End with -9 every process of the stack with these words; how many there were."""
        found = self.processes(*words)
        for process in found:
            process.send_signal(signal.SIGKILL)
        return len(found)


def _changed(record: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which the settings at these dotted paths are others."""
    made = copy.deepcopy(record)
    for path, value in changes.items():
        *sections, setting = path.split(".")
        section = made
        for name in sections:
            section = section[name]
        assert setting in section, f"there is no setting {path}"
        section[setting] = value
    return made


def until(true: Callable[[], object], what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, below those that the system gives to clients."""
    start = 20_000 + (os.getpid() * 97) % 9_000
    found = []
    for port in range(start, start + 1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
