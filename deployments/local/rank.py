"""One rank of a program under torchrun, which itself hides how its ranks end.

    rank.py EXIT_FILE PROGRAM ARGUMENT …

Runs PROGRAM as `python -m` would and leaves its exit code in EXIT_FILE if that is not 0.
A rank that is killed leaves nothing.
"""

import runpy
import sys
from pathlib import Path


def main(exit_file: Path, program: str, arguments: list[str]) -> None:
    sys.argv = [program, *arguments]
    sys.path[0] = str(Path.cwd())
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        # The first rank to end tells why; the others are ended because of it.
        if code and not exit_file.exists():
            exit_file.write_text(str(code))
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
