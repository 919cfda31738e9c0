"""What is looked after from time to time, so that a full disk finds room where it matters."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from deployments.files import SPARE, keep_spare_room
from deployments.local.layout import layout_of
from deployments.local.supervisor.launch import LOG_BYTES_MAX
from policy.config import Config


def keep_up(config: Config) -> Sequence[str]:
    """Keep spare room for records, and shorten long logs; one line for each of these.

    supervisord rotates the logs that it writes. Who goes on without supervisord writes its
    own, and is not asked to open another file: the file is copied and emptied.
    """
    layout = layout_of(config)
    if "://" not in config.root:
        keep_spare_room(Path(config.root) / SPARE)
    own = [layout.logs / f"{file.name}.log" for file in layout.alive.glob("*")]
    long = [log for log in own if log.exists() and log.stat().st_size > LOG_BYTES_MAX]
    for log in long:
        _shorten(log)
    return [f"{log} was long: its first part is in {_before(log)}" for log in long]


def _shorten(log: Path) -> None:
    try:
        shutil.copyfile(log, _before(log))
    except OSError:
        _before(log).unlink(missing_ok=True)  # a full disk: room counts for more than a log
    os.truncate(log, 0)


def _before(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")
