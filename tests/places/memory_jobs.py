"""Jobs of the place `memory`: they run in the cloud's time, whoever waits for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments import Job, Json
from deployments.stores.done import key_below
from policy.errors import JobFailed
from tests.places.memory_store import MemoryStore

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
            files = dict(cloud.files_of(self.job))
        except JobFailed as error:
            self.exit_code, self.log = error.exit_code, str(error)
            return
        hook, cloud.hook = cloud.hook, lambda _call, _when: None  # nobody to be killed here
        store = MemoryStore(cloud, scratch=_no_scratch())
        store.put_folder(key_below(store.root, self.job.output), files)
        cloud.hook = hook


class MemoryJobs:
    """`deployments.Jobs` of the cloud."""

    def __init__(self, cloud: "MemoryCloud") -> None:
        self._cloud = cloud

    def run(self, job: Job, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        state = self._attached(job)
        while not state.ended:
            with self._cloud.call("sleep"):
                self._cloud.pass_time(min(_LOOK_S, (state.ends - self._cloud.time) / US))
            done = (self._cloud.time - state.started) // US
            on_progress({"phase": job.program, "done": done, "of": state.ends // US})
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
        """The job of this key: running, ended well, or started now."""
        cloud = self._cloud
        with cloud.call("run"):
            state = cloud.jobs.get(job.key)
            if state is None or state.exit_code:
                ends = cloud.time + round(cloud.settings.job_s * US)
                state = cloud.jobs[job.key] = JobState(job, cloud.time, ends)
            return state
