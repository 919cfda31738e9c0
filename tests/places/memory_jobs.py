"""Jobs of the place `memory`: they run in the cloud's time, whoever waits for them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments import Job, Json
from deployments.stores.done import done_key, key_below
from policy.errors import JobFailed, NotFound
from tests.places.memory_store import ROOT, put_folder

if TYPE_CHECKING:
    from tests.places.memory import MemoryCloud

US = 1_000_000
_LOOK_S = 60
_CANCELLED = -15


@dataclass
class JobState:
    """One job, under way or ended; `exit_code` 0: well."""

    job: Job
    started: int
    ends: int
    ended: bool = False
    exit_code: int = 0
    log: str = ""

    def settle(self, cloud: "MemoryCloud") -> None:
        """End it if its time has come: its program leaves its files, or fails."""
        if self.ended or self.ends > cloud.time:
            return
        self.ended = True
        try:
            files = cloud.files_of(self.job)
        except JobFailed as error:
            self.exit_code, self.log = error.exit_code, str(error)
            return
        put_folder(cloud.objects, key_below(ROOT, self.job.output), files)


class MemoryJobs:
    """`deployments.Jobs` of the cloud."""

    def __init__(self, cloud: "MemoryCloud") -> None:
        self._cloud = cloud

    def run(self, job: Job, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        state = self._attached(job)
        while not state.ended:
            with self._cloud.call("sleep"):
                self._cloud.pass_time(min(_LOOK_S, (state.ends - self._cloud.time) / US))
            self._show(state, on_progress)
        if state.exit_code:
            raise JobFailed(
                f"{job.program} ended with exit code {state.exit_code}\n{state.log}",
                exit_code=state.exit_code,
            )

    def cancel(self, key: str) -> None:
        with self._cloud.call("cancel"):
            state = self._cloud.jobs.get(key)
            if state is not None and not state.ended:
                state.ended, state.exit_code, state.log = True, _CANCELLED, "cancelled"

    def _attached(self, job: Job) -> JobState:
        """This very job: running, ended well, or started now."""
        cloud = self._cloud
        with cloud.call("run"):
            for uri in job.inputs.values():
                if (
                    uri.startswith(f"{ROOT}/")
                    and done_key(key_below(ROOT, uri)) not in cloud.objects
                ):
                    raise NotFound(f"no {uri}", holds="nothing was started")
            state = cloud.jobs.get(job.key)
            if state is None or state.exit_code or state.job != job:
                ends = cloud.time + round(cloud.settings.job_s * US)
                state = cloud.jobs[job.key] = JobState(job, cloud.time, ends)
            return state

    def _show(self, state: JobState, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        """What only shows may fail without touching the work."""
        done = min(self._cloud.time, state.ends) - state.started
        record = {"phase": state.job.program, "done": done // US}
        try:
            on_progress({**record, "of": (state.ends - state.started) // US})
        except Exception as error:
            logging.getLogger(__name__).warning("progress could not be shown: %s", error)
