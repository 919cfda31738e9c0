"""Flow runs whose process is gone: what nobody runs any more must not keep a slot.

Prefect hears of a process's end from the worker that started it. After `down`, a reboot or a
kill of the worker nobody tells it, and such a run would keep its deployment's only slot. So
what the server believes to be under way in this machine's pool is held against the processes
that there are: each has the id of its run in its environment, and so have its children.

Times are this process's own, taken from a clock that is never set.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import psutil

POOL = "local"
UNDER_WAY = ("PENDING", "RUNNING", "PAUSED", "CANCELLING")
STARTING_S = 60.0  # a worker that lives has started a process long before
WORKER_CANCELS_S = 60.0  # it gives a process 30 s to end
_ASK_AFTER_S, _KILL_AFTER_S = 20.0, 60.0
_MARK, _ENGINE = "PREFECT__FLOW_RUN_ID", "prefect.engine"
_FORCED = "by the reconciler of this machine"

Verdict = Literal["leave", "end", "over"]
Processes = Mapping[str, Sequence[psutil.Process]]


@dataclass(frozen=True)
class Run:
    """A flow run as the server has it; `state` is one of UNDER_WAY. `id` is a UUID."""

    id: str
    name: str
    state_id: str
    state: str
    suspended: bool
    """It waits without a process, as Prefect's own suspension does."""


@dataclass(frozen=True)
class Seen:
    """What is known of a run: for how long it has been in its state, and who can run it.

    `worker` says whether the worker that lives now is the one that lived when the run entered
    the state; `owned`, whether one of the run's processes descends from that worker.
    """

    for_s: float
    processes: int
    worker: bool
    owned: bool


def judge(run: Run, seen: Seen) -> Verdict:
    """Whether to leave a run alone, to end its processes, or to call it over.

    A living run is never over. One that is just being started has no process yet, and a
    worker that lives cancels its runs itself.
    """
    if seen.processes:
        if run.state != "CANCELLING" or (seen.owned and seen.for_s < WORKER_CANCELS_S):
            return "leave"
        return "end"
    starting = run.state == "PENDING" and seen.worker and seen.for_s < STARTING_S
    return "leave" if starting or run.suspended else "over"


class Server:
    """The few calls to Prefect's server that need no Prefect. Each raises httpx.HTTPError.

    Args:
        client: of the server's API, with the login that it wants.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def under_way(self) -> Sequence[Run]:
        """The runs of this machine's pool that the server believes to be under way."""
        wanted = {
            "flow_runs": {"state": {"type": {"any_": [*UNDER_WAY]}}},
            "work_pools": {"name": {"any_": [POOL]}},
        }
        return [_run(found) for found in self._post("/flow_runs/filter", wanted)]

    def states(self, ids: Collection[str]) -> Mapping[str, str]:
        """The type of the state of each of these runs, such as CANCELLED, that there is."""
        wanted = {"flow_runs": {"id": {"any_": sorted(ids)}}}
        found = self._post("/flow_runs/filter", wanted)
        return {run["id"]: run["state_type"] for run in found}

    def end(self, run: Run) -> str:
        """Set a run that is over Crashed, or Cancelled; returns which, "" if it moved on.

        Its state is read once more: a process reports its end before it is gone, so what is
        still the same now will never change by itself.
        """
        now = self._found(run.id)
        if now is None or now["state_id"] != run.state_id:
            return ""
        name = "Cancelled" if run.state == "CANCELLING" else "Crashed"
        self._set(run.id, name, f"Its process is gone; marked {_FORCED}.")
        return name

    def call_cancelled(self, id: str) -> bool:
        """Set a run Cancelled that crashed while it was being cancelled.

        A flow that loses its worker may end by itself just then, and says that it crashed.
        """
        found = self._found(id)
        if found is None or found["state_type"] != "CRASHED":
            return False
        states = _read(self._client.get("/flow_run_states/", params={"flow_run_id": id}))
        before = sorted(states, key=lambda state: state["timestamp"])[-2:-1]
        if not before or before[0]["type"] != "CANCELLING":
            return False
        self._set(id, "Cancelled", f"It ended while it was being cancelled; marked {_FORCED}.")
        return True

    def _set(self, id: str, name: str, message: str) -> None:
        state = {"type": name.upper(), "name": name, "message": message}
        self._post(f"/flow_runs/{id}/set_state", {"state": state, "force": True})

    def _found(self, id: str) -> Any:
        """A run as it is now; None if it was deleted."""
        reply = self._client.get(f"/flow_runs/{id}")
        return None if reply.status_code == httpx.codes.NOT_FOUND else _read(reply)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return _read(self._client.post(path, json=body))


class DeadRuns:
    """Finds the runs that nobody runs any more and sets them Crashed or Cancelled.

    Args:
        worker: the process id of the worker that lives; None if none does.
    """

    def __init__(self, server: Server, worker: Callable[[], int | None]) -> None:
        self._server, self._worker = server, worker
        self._first: dict[str, tuple[str, float, int | None]] = {}
        self._told: dict[str, float] = {}

    def round(self) -> Sequence[str]:
        """Look once; returns one line for each run that was changed.

        Raises httpx.HTTPError if the server does not answer well: nothing is known then.
        """
        runs = self._server.under_way()
        done = [
            f"run {id} ended while it was being cancelled: Cancelled"
            for id in self._first.keys() - {run.id for run in runs}
            if self._server.call_cancelled(id)
        ]
        self._forget({run.id for run in runs})
        if not runs:
            return done
        worker, processes = self._worker(), processes_by_run()
        for run in runs:
            own = processes.get(run.id, [])
            match judge(run, self._seen(run, own, worker)):
                case "over":
                    if name := self._server.end(run):
                        done.append(f"run {run.name} ({run.id}) has no process: {name}")
                case "end":
                    done += self._stop(run, own)
                case "leave":
                    pass
        return done

    def _seen(self, run: Run, own: Sequence[psutil.Process], worker: int | None) -> Seen:
        now = time.monotonic()
        state_id, since, then = self._first.get(run.id, ("", now, worker))
        if state_id != run.state_id:
            since, then = now, worker
            self._first[run.id] = (run.state_id, since, then)
        owned = worker is not None and any(_descends(process, worker) for process in own)
        same = worker is not None and worker == then
        return Seen(for_s=now - since, processes=len(own), worker=same, owned=owned)

    def _stop(self, run: Run, own: Sequence[psutil.Process]) -> Sequence[str]:
        """End the processes of a cancelled run: the flow's own at once, the rest in time.

        The flow's is killed: asked to end, it would tell the server that it crashed. Programs
        on a leash save their work once it is gone, and are told so if they do not.
        """
        now, first = time.monotonic(), run.id not in self._told
        for_s = now - self._told.setdefault(run.id, now)
        for process in own:
            try:
                if _is_flow(process) or for_s > _KILL_AFTER_S:
                    process.kill()
                elif for_s > _ASK_AFTER_S:
                    process.terminate()
            except psutil.NoSuchProcess:
                continue  # it has ended by itself
        return [f"run {run.name} ({run.id}) was cancelled: its process ends"] if first else []

    def _forget(self, under_way: Collection[str]) -> None:
        self._first = {id: seen for id, seen in self._first.items() if id in under_way}
        self._told = {id: since for id, since in self._told.items() if id in under_way}


def _read(reply: httpx.Response) -> Any:
    if not reply.is_success:
        path, text = reply.request.url.path, reply.text[:300]
        raise httpx.ReadError(f"{path} was answered with {reply.status_code}: {text}")
    return reply.json()


def processes_by_run() -> Processes:
    """Living processes of this machine by the id of the flow run that they belong to."""
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        try:
            run = process.environ().get(_MARK, "")
            if run and process.status() != psutil.STATUS_ZOMBIE:
                found[run].append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or gone
    return found


def _is_flow(process: psutil.Process) -> bool:
    return _ENGINE in " ".join(process.cmdline())


def _descends(process: psutil.Process, ancestor: int) -> bool:
    try:
        return any(parent.pid == ancestor for parent in process.parents())
    except psutil.Error:
        return False


def _run(found: Mapping[str, Any]) -> Run:
    details = found["state"]["state_details"]
    return Run(
        id=found["id"],
        name=found["name"],
        state_id=found["state_id"],
        state=found["state_type"],
        suspended=bool(details.get("pause_reschedule")),
    )
