"""Memory of a server: kept for the next small request, given back after a large one.

Only the GNU C library is told anything; others return what is freed on their own.
"""

import ctypes
import gc
import threading
import time
from pathlib import Path

LOOK_S = 5
SPARE_BYTES = 16 * 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
RESIDENT = Path("/proc/self/statm")
PAGE_BYTES = 4096


def keep_freed() -> None:
    """Keep memory that one answer freed for the next; fresh pages cost a batch of 16 a sixth.

    One arena for all threads: what one frees another may use, and all can be given back. To
    be called before there are any.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(M_TRIM_THRESHOLD, 256 * 2**20)


def freeze_objects() -> None:
    """Exempt them from garbage collection: a pass over all of PyTorch takes 0.1 s or more."""
    gc.collect()
    gc.freeze()


def start_giving_back() -> None:
    """Look every few seconds whether more is held than now, before the first request."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim") and RESIDENT.exists():
        threading.Thread(target=_give_back, args=[libc], name="memory", daemon=True).start()


def _give_back(libc: ctypes.CDLL) -> None:
    """It takes 1 ms, and the next answer 1 to 3 ms more: too little to wait for a quiet time,
    and what is in use now may be what is to be given back at the next look."""
    libc.malloc_trim(0)
    least = _resident()
    while True:
        time.sleep(LOOK_S)
        if _resident() > least + SPARE_BYTES:
            gc.collect()
            libc.malloc_trim(0)


def _resident() -> int:
    """Bytes of this process that lie in memory."""
    return int(RESIDENT.read_text().split()[1]) * PAGE_BYTES
