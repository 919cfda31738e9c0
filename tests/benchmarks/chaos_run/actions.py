"""What is done to the stack. Each action is told before and after, and says whom it excuses."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from uuid import uuid4

import httpx
import psutil

from deployments import command
from deployments.local.stack import login
from policy.errors import ArrCocError
from policy.rollout.plans import plan_for
from policy.rollout.requests import Kind, Request
from tests.benchmarks.chaos_run.clients import Clients
from tests.benchmarks.chaos_run.kills import Kills
from tests.benchmarks.chaos_run.schedule import Action
from tests.benchmarks.chaos_run.story import Story
from tests.benchmarks.chaos_run.world import World

JUMPS_S = (120, 3600, -120, -3600, 86400, 20)
UP_TRIES = 3


class Actions:
    """Carries out one action after another; what goes on beside them is ended by `close`."""

    def __init__(
        self, world: World, story: Story, clients: Clients, bad: Collection[str]
    ) -> None:
        self._world, self._story, self._clients = world, story, clients
        self._bad = bad
        self._running = list[subprocess.Popen[str]]()
        self.excuses = dict[str, list[tuple[float, str]]]()
        kills = Kills(world, clients, self._excuse)
        self._do: Mapping[str, Callable[[float], object]] = {
            "kill anything": kills.anything,
            "kill Envoy": kills.envoy,
            "kill a model server": kills.a_server,
            "kill the reconciler": lambda n: kills.first("tasks.reconciler"),
            "kill the worker": lambda n: kills.first("worker", "start"),
            "kill Prefect's server": lambda n: kills.first("server", "start"),
            "kill supervisord, then up": self._kill_supervisord,
            "up": lambda n: self._bring_up(),
            "two ups at once": self._two_ups,
            "abort": lambda n: self._ask("abort"),
            "roll back": lambda n: self._ask("rollback"),
            "promote at once": self._promote,
            "pause and resume": self._pause,
            "a second controller": self._second_controller,
            "a flow run that is cancelled": self._cancel_a_run,
            "stop the reconciler for a while": self._stop_reconciler,
            "fill the disk": self._fill_the_disk,
            "set the clock": self._set_the_clock,
        }

    def carry_out(self, action: Action) -> None:
        self._story.tell("action", name=action.name, number=round(action.number, 3))
        try:
            told = self._do[action.name](action.number)
        except (ArrCocError, psutil.Error, OSError, httpx.HTTPError) as error:
            told = f"not carried out: {error}"
        self._story.tell("done", name=action.name, told=told)

    def close(self) -> None:
        self._world.clock.set(0)
        for process in self._running:
            self._kill_command(process)

    def excused(self, version: str, since_s: float) -> str:
        """Why `version`, good as it is, need not have been promoted; "" if it should have."""
        found = [why for at_s, why in self.excuses.get(version, []) if at_s >= since_s]
        return "; ".join(found)

    # --- excuses -------------------------------------------------------------------------

    def _excuse(self, version: str, why: str) -> None:
        self.excuses.setdefault(version, []).append((self._story.now_s(), why))

    def _excuse_canary(self, why: str) -> None:
        rollout = self._world.production().unfinished
        for version in {rollout.version} if rollout else set[str]():
            self._excuse(version, why)

    # --- processes -----------------------------------------------------------------------

    def _kill_supervisord(self, number: float) -> str:
        for daemon in self._world.supervisord():
            daemon.send_signal(signal.SIGKILL)
        time.sleep(8 * number)
        return self._bring_up()

    def _stop_reconciler(self, number: float) -> str:
        """It is away for longer than a step may take, and comes back."""
        [*found] = self._world.processes("tasks.reconciler")[:1]
        for process in found:
            process.suspend()
            time.sleep(5 + 70 * number)
            process.resume()
        return f"away for {5 + 70 * number:.0f} s" if found else "there was none"

    # --- up ------------------------------------------------------------------------------

    def _bring_up(self) -> str:
        """`up` may meet what was killed a moment ago; it must succeed when it is repeated."""
        for _ in range(UP_TRIES):
            code, said = self._world.up()
            self._story.tell("up", code=code, said=said[-600:])
            if code == 0:
                return "up"
        self._story.breach("up brings everything up", said[-600:])
        return "not up"

    def _two_ups(self, number: float) -> str:
        other = threading.Thread(target=self._bring_up)
        other.start()
        told = self._bring_up()
        other.join()
        return told

    # --- requests ------------------------------------------------------------------------

    def _ask(self, kind: Kind) -> str:
        if kind in ("abort", "rollback"):
            self._excuse_canary(f"asked for: {kind}")
            self._excuse_waiting(kind)
        request = Request(
            id=uuid4().hex, kind=kind, endpoint="production", by="chaos", why="chaos",
            plan=plan_for(self._world.config, "production"),
        )  # fmt: skip
        return command.make(self._world.place, request).reason

    def _promote(self, number: float) -> str:
        """Only what is good: who promotes a bad version by hand gets it."""
        rollout = self._world.production().unfinished
        if rollout is None or rollout.version in self._bad:
            return "nothing good is under way"
        return self._ask("promote")

    def _excuse_waiting(self, kind: str) -> None:
        """A rollback withdraws what waits."""
        for answer in self._world.state().requests.values():
            if not answer.decided:
                self._excuse(answer.request.version, f"asked for: {kind}")

    def _pause(self, number: float) -> str:
        told = self._ask("pause")
        time.sleep(1 + 6 * number)
        return f"{told}; {self._ask('resume')}"

    def _second_controller(self, number: float) -> str:
        """A terminal that drives too, by a request of its own, and is killed in the middle."""
        state = self._world.production()
        rollout = state.unfinished
        if rollout is None or rollout.rollback:
            return "nothing is under way"
        words = ("rollout", rollout.version, "--why", "chaos", str(self._world.file))
        process = self._world.start("flows", *words)
        self._running.append(process)
        time.sleep(3 + 12 * number)
        self._kill_command(process)
        return f"drove {rollout.version}"

    def _cancel_a_run(self, number: float) -> str:
        """A run of the deployment that drives what is under way, cancelled in the UI."""
        rollout = self._world.production().unfinished
        if rollout is None or rollout.rollback:
            return "nothing is under way"
        with login.client(self._world.config) as prefect:
            found = prefect.get("/deployments/name/rollout/production").raise_for_status()
            parameters = {"version": rollout.version, "config": str(self._world.file)}
            path = f"/deployments/{found.json()['id']}/create_flow_run"
            made = prefect.post(path, json={"parameters": parameters}).raise_for_status()
            time.sleep(8 + 15 * number)
            self._excuse(rollout.version, "its run was cancelled")
            path = f"/flow_runs/{made.json()['id']}/set_state"
            prefect.post(path, json={"state": {"type": "CANCELLING"}}).raise_for_status()
        return f"drove {rollout.version}"

    def _kill_command(self, process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    # --- the machine ---------------------------------------------------------------------

    def _fill_the_disk(self, number: float) -> str:
        if not self._world.small_disk:
            return "left out: no small disk could be mounted"
        self._excuse_canary("the disk was full")
        path = self._world.disk / "full"
        try:
            _fill(path)
            time.sleep(3 + 15 * number)
            self._excuse_canary("the disk was full")
        finally:
            path.unlink(missing_ok=True)
        return f"full for {3 + 15 * number:.0f} s"

    def _set_the_clock(self, number: float) -> str:
        if not self._world.clock.can_jump:
            return "left out: no C compiler"
        offset_s = JUMPS_S[int(number * len(JUMPS_S))]
        self._world.clock.set(offset_s)
        time.sleep(10)
        self._world.clock.set(0)
        return f"{offset_s:+} s, and back"


def _fill(path: Path) -> None:
    """Take the last byte of the disk that `path` lies on."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break
