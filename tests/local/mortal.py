"""A controller in a process of its own that ends itself by SIGKILL at one of its records.

`drive` is what a rollout's flow does, in the same order, on a real place.
"""

import faulthandler
import os
import signal
from dataclasses import dataclass, replace

from deployments import Store, command, local
from policy.config import parse_config
from policy.rollout.plans import plan_for
from policy.rollout.requests import Request
from tasks.rollout.controller import drive as look_until
from tests.benchmarks.rollout_trials import SERVER


@dataclass
class MortalStore:
    """The place's store; the process dies `before` or after the record that follows `spare`."""

    store: Store
    spare: int
    before: bool

    def __getattr__(self, name):
        return getattr(self.store, name)

    def create(self, key, data):
        if self.spare == 0 and self.before:
            os.kill(os.getpid(), signal.SIGKILL)
        self.store.create(key, data)
        if self.spare == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.spare -= 1


def drive(config: str, version: str, spare: int, before: bool) -> None:
    """Roll `version` out to production, or die; a negative `spare` never dies.

    The run that goes on makes the same request again: it does not begin anew.
    """
    faulthandler.dump_traceback_later(100)  # a process that hangs says where
    settings = parse_config(config, "the test's configuration")
    place = local.connect(settings, server=SERVER)
    mortal = replace(place, store=MortalStore(place.store, spare, before))
    request = Request(
        id=f"run of {version}", kind="rollout", endpoint="production", by="a mortal",
        why="a test", version=version, plan=plan_for(settings, "production"),
    )  # fmt: skip
    command.make(mortal, request)
    look_until(
        mortal,
        "production",
        lambda state: state.requests[request.id].decided,
        by="a mortal",
    )
