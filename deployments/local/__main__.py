"""The life of the local stack: up, status, env, down."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from deployments.local.stack import life as stack
from deployments.local.stack.health import Health, health
from deployments.local.stack.orchestrator import environment
from policy.config import load_config
from policy.errors import ArrCocError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "env"])
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
        stack.up(config, _say, deployments=not asked.no_deploy)
    elif asked.command == "down":
        stack.down(config, _say)
    elif asked.command == "env":
        for name, value in environment(config).items():
            _say(f"export {name}={value}")
    else:
        found = health(config)
        _say(json.dumps(asdict(found), default=str) if asked.json else _table(found))
        return 0 if found.well else 1
    return 0


def _table(found: Health) -> str:
    lines = [
        f"{p.program} {p.process if p.process != p.program else ''}".ljust(48)
        + f"{p.state:10} pid {p.pid:<8} up {time.strftime('%H:%M:%S', time.gmtime(p.uptime_s))}"
        for p in found.programs
    ]
    for endpoint in found.endpoints:
        lines.append(f"endpoint {endpoint.name} at {endpoint.url}: {endpoint.problem or 'up'}")
        lines += [
            f"  {v.version:32} {v.weight:3} %  {'ready' if v.ready else 'not ready'}"
            for v in endpoint.versions
        ]
    lines.append(f"Prefect at {found.prefect_url}: {'up' if found.prefect_up else 'down'}")
    return "\n".join(lines)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ArrCocError as error:
        sys.exit(f"error: {error}")
