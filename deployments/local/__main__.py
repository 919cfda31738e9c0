"""The life of the local stack: up, status, login, env, tokens, down, clean."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from deployments import Health, console
from deployments.local import token_commands
from deployments.local.servers import local_of
from deployments.local.stack import life as stack
from deployments.local.stack.health import health
from deployments.local.stack.login import read_login
from deployments.local.stack.orchestrator import environment, server_url
from policy.config import load_config

COMMANDS = {
    "up": "start or repair the stack",
    "down": "stop all of it; the data stays",
    "status": "what runs and what serves",
    "login": "what opens the Prefect UI",
    "env": "variables for a shell that talks to Prefect",
    "clean": "stop it and delete what this configuration kept",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, said in COMMANDS.items():
        command = commands.add_parser(name, help=said)
        command.add_argument("config", type=Path)
        if name == "status":
            command.add_argument("--json", action="store_true", help="as JSON")
        if name == "up":
            command.add_argument(
                "--no-deploy", action="store_true", help="do not register prefect.yaml"
            )
    token_commands.add_to(commands)
    asked = parser.parse_args()
    config = load_config(asked.config)
    if asked.command == "tokens":
        token_commands.run(asked, config)
    elif asked.command == "up":
        # prefect.yaml takes these two from the environment.
        os.environ["ARR_COC_HOME"] = str(Path.cwd())
        os.environ["ARR_COC_CONFIG"] = str(asked.config.resolve())
        stack.up(config, console.say, file=asked.config, deployments=not asked.no_deploy)
        console.say(f"Prefect UI: {server_url(local_of(config))} (make login shows the login)")
    elif asked.command == "down":
        stack.down(config, console.say)
    elif asked.command == "clean":
        stack.stop(config, console.say)
        stack.clean(config, console.say)
    elif asked.command == "login":
        console.say(read_login(config))
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
