"""A whole stack of its own for a test: real servers on free ports, in a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from deployments import Release, connect, ledger
from deployments.releases import folder as releases
from deployments.releases.keys import trusted
from policy.config import load_config

REPOSITORY = Path(__file__).parents[2]
FINGERPRINT = "sha256:64815d50ef06a7f3b0825f97d6193940ab5348e23f091db096ba39760f0b9e79"
PORTS = ("prefect_port", "staging_port", "staging_admin_port", "production_port",
         "production_admin_port", "metrics_port")  # fmt: skip
SMALL = {
    "images=8000&questions=16": "images=300&questions=6",
    "questions_min: 500": "questions_min: 20",
    "steps_max: 500": "steps_max: 12",
    "processes: 2": "processes: 1",
    "every_s: 10": "every_s: 0.5",
    "mode: offline": "mode: disabled",
    "non_inferiority_margin: 0.02": "non_inferiority_margin: 1.0",
    "  accuracy_min: 0.75": "  accuracy_min: 0.0",
    "accuracy_margin: 0.1": "accuracy_margin: 1.0",
    "  accuracy_min: 0.80": "  accuracy_min: 0.0",
    "family_accuracy_min: 0.60": "family_accuracy_min: 0.0",
    "bake_s: 7": "bake_s: 3",
    "  s: 5": "  s: 1",
}


class Stack:
    """`deployments/local.yaml` made small, and what the tests do with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = self.write("local.yaml")
        self.config = load_config(self.path)
        self.place = connect(self.config)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")} | {
            "PREFECT_API_URL": f"http://127.0.0.1:{self.config.local.prefect_port}/api",
            "PREFECT_HOME": str(root / "home"),
        }

    def write(self, name: str, **changes: str) -> Path:
        """Write a variant of the configuration; its ports stay those of the stack."""
        text = (REPOSITORY / "deployments/local.yaml").read_text()
        pinned = load_config(REPOSITORY / "deployments/local.yaml").dataset.version
        small = {**SMALL, pinned: FINGERPRINT, "root: .arr-coc": f"root: {self.root / 'r'}"}
        for old, new in {**small, **changes}.items():
            assert old in text, f"{old!r} is not in local.yaml"
            text = text.replace(old, new)
        if not hasattr(self, "ports"):
            self.ports = free_ports(len(PORTS) + 12)
        for key, port in zip(PORTS, self.ports, strict=False):
            text = "\n".join(
                f"  {key}: {port}" if line.strip().startswith(f"{key}:") else line
                for line in text.splitlines()
            )
        first = self.ports[-1] + 1
        text = text.replace("[8100, 8199]", f"[{first}, {first + 40}]")
        path = self.root / name
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

    def ledger(self):
        return ledger.read(self.place.store)

    def production(self):
        return self.ledger().endpoint("production")

    def copy_of(self, version: str, name: str) -> str:
        """Register a copy of a release under a digest of its own."""
        from tasks.release import enter, publish, read_scores

        digest = self.ledger().version(version).registered.digest
        release, keys = Release(version, digest), trusted(self.config)
        folder = releases.fetch(self.place.store, release, self.root / name, keys)
        (folder / "lineage.json").write_text(json.dumps({"copy": name}))
        published = publish(self.config, folder)
        return enter(self.config, published, read_scores(folder), ("a test",), {}, "a test")

    def ask(self) -> int:
        """One question to production as a user would ask it; the status, 0 if none came."""
        lines = next(self.root.glob("r/releases/*/requests.jsonl")).read_text().splitlines()
        body = {"instances": [json.loads(lines[0])["instance"]]}
        url = f"http://127.0.0.1:{self.config.local.production_port}/predict"
        try:
            return httpx.post(url, json=body, timeout=10).status_code
        except httpx.TransportError:
            return 0

    def processes(self, *words: str) -> list[psutil.Process]:
        """Living processes of this stack whose command line has all `words`."""
        mark = f"unix://{(self.root / 'r/supervisor/sock').resolve()}"
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("SUPERVISOR_SERVER_URL") == mark
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if ours and all(word in line for word in words):
                found.append(process)
        return found

    def kill(self, *words: str) -> int:
        """End with -9 every process of the stack with these words; how many there were."""
        found = self.processes(*words)
        for process in found:
            process.send_signal(signal.SIGKILL)
        return len(found)


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
