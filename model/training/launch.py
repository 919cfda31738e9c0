"""Start the processes of one training on this machine, and pass on their exit code.

Not torchrun: its agent and the store at which the processes meet listen on every address of
the machine, ask nobody who they are, and unpickle what they are told. Here they meet at a file
in a folder that is the owner's alone (`meet`), and what they send each other is bound to the
loopback interface. Under torchrun, on several machines, they still meet as torchrun wants.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from model.program.errors import ModelError, Stopped

FOLDER = "ARR_COC_MEETING"
POLL_S = 0.05
ENDING_S = 30.0  # for a process to save what it has
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class ProcessFailed(ModelError):
    """A process of the training ended with this code and has said why."""

    def __init__(self, found: str, code: int) -> None:
        super().__init__(found)
        self.exit_code = code


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run `python …` `processes` times to the end. Raises ProcessFailed or Stopped."""
    # Only noted: an error raised while a process is being started would lose sight of it.
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told_to_stop.set())
    folder, started = tempfile.mkdtemp(prefix="arr-coc-"), list[subprocess.Popen[bytes]]()
    try:
        for rank in range(processes):
            told = {**os.environ, **_told(rank, processes, folder)}
            started.append(subprocess.Popen([sys.executable, *arguments], env=told))
        _wait(started, told_to_stop)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(started)
        shutil.rmtree(folder, ignore_errors=True)


def meet(accelerators: int) -> None:
    """Join the other processes that `launch` started; nothing where torchrun did, or nobody."""
    if FOLDER not in os.environ:
        return
    import torch
    import torch.distributed as dist

    if accelerators:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "nccl" if accelerators else "gloo",
        init_method=f"file://{Path(os.environ[FOLDER]) / 'store'}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    atexit.register(dist.destroy_process_group)


def _told(rank: int, processes: int, folder: str) -> dict[str, str]:
    """What torchrun would tell, but for where to meet."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "TORCHELASTIC_RUN_ID": "one machine", FOLDER: folder,
        "GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK,
    }  # fmt: skip


def _wait(started: Sequence["subprocess.Popen[bytes]"], told_to_stop: threading.Event) -> None:
    """Until all have ended well. Raises Stopped, or ProcessFailed for one that did not."""
    while any(one.poll() is None for one in started):
        if told_to_stop.is_set():
            raise Stopped("stopped by SIGTERM", do="run the same command again")
        _require_well(started)
        time.sleep(POLL_S)
    _require_well(started)


def _require_well(started: Sequence["subprocess.Popen[bytes]"]) -> None:
    for rank, one in enumerate(started):
        if code := one.poll():
            found = f"process {rank} of {len(started)} ended with {code}"
            raise ProcessFailed(found, code if code > 0 else 1)


def _end(started: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Whatever still runs gets SIGTERM, time to save, and SIGKILL."""
    for one in started:
        if one.poll() is None:
            one.terminate()
    deadline = time.monotonic() + ENDING_S
    for one in started:
        try:
            one.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
