"""Clock jumps: the stack's programs read the day through clock.c, which adds what a file says.

The monotonic clock stays true, as on a machine whose time is set. Where there is no C compiler
no clock is set, and the run says so; tests/rollout_stories has such nights on the place
`memory`. Debian's libfaketime would do the same, but Python cannot sleep under it (0.9.10:
clock_nanosleep is refused).
"""

import mmap
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class Clock:
    """`environment` makes a program, and all that it starts, read the day from the file."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        self._file.write_bytes(bytes(8))
        self.can_jump = _built(library)
        self.environment: Mapping[str, str] = (
            {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}
            if self.can_jump
            else {}
        )

    def set(self, offset_s: int) -> None:
        """Let every program's clock be so many seconds off, from now on."""
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            struct.pack_into("=q", shared, 0, offset_s)


def _built(library: Path) -> bool:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return False
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
