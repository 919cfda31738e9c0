"""Start the processes of one training under torchrun's agent, and pass on their exit code.

torchrun itself answers every failure with exit code 1; our callers need to know bad input
from a crash, and a crash from a stop that can be gone on from.
"""

import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from model.program.errors import ModelError, Stopped


class ProcessFailed(ModelError):
    """A process of the training ended with this code and has said why."""

    def __init__(self, found: str, code: int) -> None:
        super().__init__(found)
        self.exit_code = code


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run `python …` `processes` times to the end. Raises ProcessFailed or Stopped."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", max_restarts=0, monitor_interval=0.1,
        local_addr="127.0.0.1",
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        code = first.exitcode if first.exitcode > 0 else 1
        raise ProcessFailed(
            f"process {rank} of {processes} ended with {first.exitcode}", code
        ) from error
    except SignalException as error:
        if error.sigval is not signal.SIGTERM:
            raise
        raise Stopped("stopped by SIGTERM", do="run the same command again") from error
