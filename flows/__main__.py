"""What people ask and tell the loop from a terminal, beside Prefect's own commands.

    python -m flows status  [--json] [CONFIG]      exit code 1 if the stack is not healthy
    python -m flows history [--json] [CONFIG]
    python -m flows abort|promote|pause|resume|approve|reject --why "…" [CONFIG]

The last line's commands are records in the ledger: whichever controller drives the rollout
finds them at its next look, so they work from any machine that reaches the store.
"""

import argparse
import getpass
import sys
from pathlib import Path

from flows.terminal import history, status
from policy.config import load_config
from policy.errors import ArrCocError

COMMANDS = ("abort", "promote", "pause", "resume", "approve", "reject")


def main(arguments: list[str]) -> int:
    asked = _parser().parse_args(arguments)
    try:
        config = load_config(asked.config)
        if asked.command == "status":
            return status.show(config, as_json=asked.json)
        if asked.command == "history":
            return history.show(config, as_json=asked.json)
        from flows.terminal import command

        return command.give(config, asked.command, asked.endpoint, asked.by, asked.why)
    except ArrCocError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows", description="Ask and tell the loop."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("status", "what serves where, the last runs, the ledger's head, health"),
        ("history", "who promoted which version when, and why"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--json", action="store_true")
        _config(command)
    for name in COMMANDS:
        command = commands.add_parser(name, help=f"{name} the rollout under way")
        command.add_argument("--why", required=True, help="one sentence for the ledger")
        command.add_argument("--by", default=getpass.getuser(), help="who; you, if not given")
        command.add_argument("--endpoint", default="production")
        _config(command)
    return parser


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, nargs="?", default=Path("deployments/local.yaml"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
