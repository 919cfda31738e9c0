"""A controller in a process of its own that ends itself by SIGKILL at one of its records.

`drive` is what flows/rollout.py does, in the same order, on a real place.
"""

import faulthandler
import os
import signal
from dataclasses import dataclass, replace
from unittest.mock import patch

from deployments import Store, local
from policy.config import parse_config
from policy.rollout.record import finished
from tasks.rollout import steps as tasks
from tests.benchmarks.rollout_trials import SERVER


@dataclass
class MortalStore:
    """The place's store; the process dies `before` or after the record that follows `spare`."""

    store: Store
    spare: int
    before: bool

    def read(self, key):
        return self.store.read(key)

    def list(self, prefix):
        return self.store.list(prefix)

    def create(self, key, data):
        if self.spare == 0 and self.before:
            os.kill(os.getpid(), signal.SIGKILL)
        self.store.create(key, data)
        if self.spare == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.spare -= 1


def drive(config: str, version: str, spare: int, before: bool) -> None:
    """Roll `version` out to production, or die; a negative `spare` never dies.

    The run that goes on is the same one, retried: it does not begin anew what was decided.
    """
    os.environ["PREFECT__RUNTIME__FLOW_RUN__ID"] = f"run of {version}"
    faulthandler.dump_traceback_later(100)  # a process that hangs says where
    settings = parse_config(config, "the test's configuration")
    place = local.connect(settings, server=SERVER)
    mortal = replace(place, store=MortalStore(place.store, spare, before))
    with patch("tasks.rollout.steps.connect", lambda _config: mortal):
        state = tasks.begin.fn(settings, "production", version, "a mortal")
        while not finished(state):
            state = tasks.step.fn(settings, state)
        tasks.settle.fn(settings, state)
