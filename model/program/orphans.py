"""A process ends when the one that started it dies, however that happens: nobody else would.

A parent that is killed with -9 can end nobody. Of a fork server's children the parent is
whoever asked for them, and not the server, which lives as long as they do.
"""

import multiprocessing
import os
import threading
import time

from model.program.console import log

LOOK_S = 0.5


def end_with_parent(_number: int = 0) -> None:
    """End this process soon after its parent is gone.

    Args:
        _number: of a data worker; torch hands it over.
    """
    parent, asked = os.getppid(), multiprocessing.parent_process()

    def look() -> None:
        while os.getppid() == parent and (asked is None or asked.is_alive()):
            time.sleep(LOOK_S)
        log("the process that started this one died; this one ends too")
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
