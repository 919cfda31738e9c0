"""What was done and seen, one line of JSON each: enough to tell how a breach came about."""

import json
import threading
import time
from pathlib import Path
from typing import Any

SHOWN_BEFORE_S = 60.0
_SHOWN_MAX = 60  # lines


class Story:
    """Every thread of the run writes into it. `breaches` is what must not have happened."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = path.open("a", buffering=1), threading.Lock()
        self._start, self._lines = time.monotonic(), list[dict[str, Any]]()
        self.path, self.breaches = path, list[str]()

    def now_s(self) -> float:
        """Seconds since the run began, by a clock that nobody sets."""
        return time.monotonic() - self._start

    def tell(self, what: str, **facts: Any) -> None:
        line = {"at_s": round(self.now_s(), 2), "what": what, **facts}
        with self._lock:
            self._lines.append(line)
            self._file.write(json.dumps(line, default=str) + "\n")

    def breach(self, invariant: str, found: str) -> None:
        """Tell it with all that happened in the minute before."""
        self.tell("BREACH", invariant=invariant, found=found)
        with self._lock:
            self.breaches.append(f"{invariant}: {found}")
            since = self.now_s() - SHOWN_BEFORE_S
            shown = [line for line in self._lines if line["at_s"] >= since][-_SHOWN_MAX:]
        told = "\n".join(f"    {json.dumps(line, default=str)}" for line in shown)
        print(f"BREACH of {invariant}: {found}\n  what happened before:\n{told}", flush=True)
