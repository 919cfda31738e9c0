"""The life of the local stack: up, status, env, down, clean."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from deployments import Health, console
from deployments.local.stack import life as stack
from deployments.local.stack.health import health
from deployments.local.stack.orchestrator import environment
from policy.config import load_config


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "env", "clean"])
    parser.add_argument("config", type=Path)
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument(
        "--no-deploy", action="store_true", help="do not register prefect.yaml's deployments"
    )
    asked = parser.parse_args()
    config = load_config(asked.config)
    if asked.command == "up":
        # prefect.yaml takes these two from the environment.
        os.environ["ARR_COC_HOME"] = str(Path.cwd())
        os.environ["ARR_COC_CONFIG"] = str(asked.config.resolve())
        stack.up(config, console.say, file=asked.config, deployments=not asked.no_deploy)
    elif asked.command == "down":
        stack.down(config, console.say)
    elif asked.command == "clean":
        stack.down(config, console.say)
        stack.clean(config, console.say)
    elif asked.command == "env":
        for name, value in environment(config).items():
            console.say(f"export {name}={value}")
    else:
        found = health(config)
        told = {"well": found.well, **asdict(found)}
        console.say(json.dumps(told) if asked.json else _table(found))
        return 0 if found.well else 1
    return 0


def _table(found: Health) -> str:
    lines = []
    for part in found.parts:
        lines.append(f"{part.name:56} {part.state}")
        lines += [f"  {line}" for line in part.problem.splitlines()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(console.exit_code_of(main))
