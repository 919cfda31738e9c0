"""A program by the contract of model/README.md that works, fails or dies as it is told.

{"steps": N, "exit": code or -signal, "until_start": N, "grandchild": bool, "spew": N lines,
 "save_s": seconds that saving takes after SIGTERM, which then ends it with 75}
"""

import argparse
import json
import os
import signal
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

    output.mkdir(parents=True, exist_ok=True)
    if (output / "done").exists():
        return 0  # by the contract: finished output is left alone
    if "save_s" in told:
        signal.signal(signal.SIGTERM, lambda *_: save(output, told["save_s"]))
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
    for _ in range(told.get("spew", 0)):
        print(json.dumps({"progress": {"phase": "spewing", "text": "x" * 1000}}), flush=True)
    for step in range(told.get("steps", 1)):
        print(json.dumps({"progress": {"phase": "chores", "done": step + 1}}), flush=True)
        (output / "alive").write_text(str(time.time()))
        time.sleep(0.1)
    data = Path(asked.data)
    text = (data / "data.txt").read_text() if data.is_dir() and asked.data else asked.data
    (output / "done").write_text(text)
    return 0


def save(output: Path, took_s: float) -> None:
    time.sleep(took_s)
    print("the checkpoint is saved", flush=True)
    (output / "checkpoint").write_text("saved")
    sys.exit(75)


if __name__ == "__main__":
    sys.exit(main())
