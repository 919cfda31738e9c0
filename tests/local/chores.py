"""A program by the contract of model/README.md that works, fails or dies as it is told.

{"steps": N, "exit": code or -signal, "until_start": N, "grandchild": bool}
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", default="")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    told = json.loads(asked.config.read_text())
    output = asked.output

    with (output / "starts").open("a") as file:
        file.write("started\n")
    started = len((output / "starts").read_text().splitlines())
    print("a line of log", flush=True)
    if told.get("grandchild"):
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleeper, start_new_session=True)
        (output / "grandchild").write_text(str(child.pid))
    if "exit" in told and started < told.get("until_start", 100):
        if told["exit"] < 0:
            os.kill(os.getpid(), -told["exit"])
            time.sleep(60)
        print(f"error: told to end with {told['exit']}", file=sys.stderr, flush=True)
        return told["exit"]
    for step in range(told.get("steps", 1)):
        print(json.dumps({"progress": {"phase": "chores", "done": step + 1}}), flush=True)
        (output / "alive").write_text(str(time.time()))
        time.sleep(0.1)
    (output / "done").write_text(asked.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
