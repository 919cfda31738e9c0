"""A whole stack of its own on a small disk: the product's own commands in a copy of the tree.

Nothing is replaced but model/, as README says that it may be: its server here is the stand-in
of tests/e2e/trial_server.py, so that two cores are enough for many rollouts.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from deployments import connect, ledger
from deployments.local.layout import layout_of
from deployments.local.supervisor.processes import descendants
from deployments.local.supervisor.programs import Supervisor
from deployments.releases import folder as releases
from deployments.releases.keys import signing_key, trusted
from policy.config import load_config
from policy.ledger import EndpointState, Ledger
from policy.records import Registered
from tests.benchmarks.chaos_run.clock import Clock
from tests.e2e.stack import free_ports

REPOSITORY = Path(__file__).parents[3]
COPIED = ("flows", "tasks", "deployments", "policy", "tests")
UNMOUNT = ["umount"]
DISK_MB = 900  # of which `make status` wants 200 free
SERVER = (
    "import runpy\nrunpy.run_module('tests.e2e.trial_server', run_name='__main__', "
    "alter_sys=True)\n"
)
QUESTIONS = [
    {"instance": {"question": f"q{n}"}, "answer": f"q{n}", "family": "echo"} for n in range(10)
]
ROLLOUT: Mapping[str, Any] = {"bake_s": 3.0, "look_s": 0.5, "analyses": []}
JUDGE: Mapping[str, Any] = {"slow_margin": 1.0}  # what we do to the machine makes all slow
WATCH: Mapping[str, Any] = {"s": 3.0}
DEADLINES: Mapping[str, Any] = {"deploying_s": 60.0}


class World:
    """The stack, its folder and its disk; `close` takes all of it away."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="arr"))
        self.disk, self.code = self.folder / "d", self.folder / "code"
        self.small_disk = self._mount()
        self._copy_code()
        self.clock = Clock(self.folder)
        self.file = self._configure()
        self.config = load_config(self.file)
        self.layout = layout_of(self.config)
        self.place = connect(self.config)
        self.endpoint = self.place.endpoint("production")
        self._count = 0

    def _mount(self) -> bool:
        """Whether the disk is a small one of its own, which only root may mount."""
        self.disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "chaos"]
        try:
            done = subprocess.run([*command, self.disk], capture_output=True, check=False)
        except FileNotFoundError:
            return False
        return done.returncode == 0

    def _copy_code(self) -> None:
        skipped = shutil.ignore_patterns("__pycache__", ".arr-coc*")
        for name in COPIED:
            shutil.copytree(REPOSITORY / name, self.code / name, ignore=skipped)
        shutil.copy(REPOSITORY / "prefect.yaml", self.code)
        (self.code / "model").mkdir()
        (self.code / "model/serve.py").write_text(SERVER)

    def _configure(self) -> Path:
        record = yaml.safe_load((self.code / "deployments/local.yaml").read_text())
        ports = iter(free_ports(2 + len(record["endpoints"])))
        record |= {"root": str(self.disk / "r"), "scratch": str(self.disk / "s")}
        record["rollout"] |= ROLLOUT
        record["rollout"]["judge"] |= JUDGE
        record["rollout"]["watch"] |= WATCH
        record["rollout"]["deadlines"] |= DEADLINES
        record["local"] |= {"prefect_port": next(ports), "metrics_port": next(ports)}
        for endpoint in record["local"]["endpoints"].values():
            endpoint["port"] = next(ports)
        path = self.folder / "chaos.yaml"
        path.write_text(yaml.safe_dump(record, sort_keys=False))
        return path

    # --- commands ------------------------------------------------------------------------

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command of the project, as another shell would give it."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=self.code, env=env | self.clock.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, timeout: float = 300) -> tuple[int, str]:
        """Exit code and what was said; -1 if it took too long."""
        process = self.start(*command)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return -1, process.communicate()[0]
        return process.returncode, said

    def up(self, *, deployments: bool = False) -> tuple[int, str]:
        """Once with the deployments of prefect.yaml; they need not be registered again."""
        more = [] if deployments else ["--no-deploy"]
        return self.run("deployments.local", "up", str(self.file), *more)

    # --- what there is -------------------------------------------------------------------

    def state(self) -> Ledger:
        return ledger.read(self.place.store)

    def production(self) -> EndpointState:
        return self.state().endpoint("production")

    def processes(self, *words: str) -> list[psutil.Process]:
        """Living processes of the stack with all `words` in the command, oldest first."""
        found = []
        for process in descendants(Supervisor(self.layout).url):
            try:
                if all(word in " ".join(process.cmdline()) for word in words):
                    found.append((process.create_time(), process.pid, process))
            except psutil.Error:
                continue
        return [process for _, _, process in sorted(found, key=lambda one: one[:2])]

    def supervisord(self) -> list[psutil.Process]:
        conf = str(self.layout.supervisor / "supervisord.conf")
        return [p for p in psutil.process_iter() if conf in _command(p)]

    def servers(self, version: str) -> list[psutil.Process]:
        """The model servers of a version on production, not who only watches one."""
        return [
            p
            for p in self.processes("-m model.serve")
            if "launch.py" not in " ".join(_command(p))
            and _variable(p, "ARR_COC_VERSION") == version
            and "production" in _variable(p, "ARR_COC_SOCKET")
        ]

    def left(self) -> list[str]:
        """Command lines of all processes that know this folder."""
        me, folder = psutil.Process().pid, str(self.folder)
        found = [p for p in psutil.process_iter() if p.pid != me and _alive(p)]
        return [
            " ".join(_command(p))[:200]
            for p in found
            if folder in " ".join(_command(p))
            or folder in _variable(p, "SUPERVISOR_SERVER_URL")
        ]

    # --- versions ------------------------------------------------------------------------

    def register(self, behaviour: Mapping[str, Any]) -> str:
        """Enter a version whose server behaves like this, past training and gate."""
        self._count += 1
        version = f"v{self._count}"
        folder = self.folder / "made" / version
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "behaviour.json").write_text(json.dumps({"version": version, **behaviour}))
        lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
        (folder / "requests.jsonl").write_text(lines)
        digest = releases.seal(folder, signing_key(self.config))
        releases.publish(self.place.store, folder, digest, trusted(self.config))
        if behaviour.get("damaged"):
            path = Path(self.config.root) / "releases" / digest / "behaviour.json"
            path.write_text("{}")
        event = Registered(
            version=version, digest=digest, accuracy=1, families={}, reasons=(), lineage={}
        )
        ledger.append(self.place.store, lambda _state: event, by="chaos")
        return version

    def close(self) -> None:
        """End what is left and delete everything but the story."""
        Supervisor(self.layout).shutdown()
        if self.small_disk:
            for _ in range(20):
                done = subprocess.run([*UNMOUNT, self.disk], capture_output=True, check=False)
                if done.returncode == 0:
                    break
                time.sleep(0.5)
        for name in ("d", "code", "made"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []


def _variable(process: psutil.Process, name: str) -> str:
    try:
        return process.environ().get(name, "")
    except (psutil.Error, OSError):
        return ""


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
