"""What people ask and tell the loop from a terminal, beside Prefect's own commands.

    python -m flows status  [--json] [CONFIG]      what serves; 0 if all is well, else 1
    python -m flows history [--json] [CONFIG]      who asked for what, and what came of it
    python -m flows show VERSION [CONFIG]          everything about one version
    python -m flows diff VERSION VERSION [CONFIG]  how two versions differ
    python -m flows plan [CONFIG]                  what a rollout would do, and how long
    python -m flows watch DEPLOYMENT [--param NAME=VALUE] [CONFIG]
                                                   run a deployment and read along; 1 if red
    python -m flows demo [CONFIG]                  the whole loop in minutes
    python -m flows repair-ledger [CONFIG]         set aside a last record that was cut short
    python -m flows abort|promote|pause|resume|approve|reject|rollback --why "…" [CONFIG]
    python -m flows rollout VERSION --why "…" [CONFIG]

The last two lines' commands are requests in the ledger, made from any machine that reaches the
store. Those that take a while are carried out by this process, if nobody else does; exit code
0 means that the request came true.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from deployments import console
from flows.terminal.problem import DEFAULT
from policy.config import Config, load_config

REQUESTS = {
    "abort": "end the rollout under way; what served before gets all requests",
    "promote": "give the version of the rollout under way all requests at once",
    "pause": "keep the rollout under way where it is",
    "resume": "let a paused rollout go on",
    "approve": "say yes to a rollout that waits for a person",
    "reject": "say no to it: it is rolled back",
    "rollback": "bring the version before back, at once; aborts a rollout under way",
    "rollout": "walk a registered version step by step to all requests",
}
QUESTIONS = {
    "status": "what serves where, the last runs, and whether everything is well",
    "history": "who asked for what when and why, and what came of it",
    "show": "everything about one version",
    "diff": "how two versions differ",
    "plan": "what a rollout would do, and how long it would take",
    "watch": "run a deployment, such as retrain/on-demand, and read along",
    "demo": "the whole loop in minutes, on this machine",
    "repair-ledger": "set aside the ledger's last record if it was cut short; nothing else",
}
ENDS = {
    "status": "exit code: 0 if everything is well; 1 if anything is not, or could not be "
    "looked at. Problems come in this order: what endangers clients now, what a rollback would "
    "meet, the rest; each with the command that mends it.",
    "history": "exit code: 1 if the ledger is broken, or records are gone; else 0.",
    "repair-ledger": "exit code: 0 if the ledger is whole now; 1 if anything else is wrong "
    "with it: then nothing was changed. The record is moved to ledger-torn/ below root.",
}
WAIT_MAX_S = 30 * 86400
NAMES = {"show": ("version",), "diff": ("before", "after"), "watch": ("deployment",)}


def main(arguments: Sequence[str]) -> int:
    """Carry out one command; its exit code. argparse ends with 2 for a wrong one."""
    return console.exit_code_of(partial(_command, arguments))


def _command(arguments: Sequence[str]) -> int:
    asked = _asked(arguments)
    config = load_config(asked.config)
    if asked.command in REQUESTS:
        return _request(config, asked)
    return _question(config, asked)


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    """argparse does not find a last argument that options part from the others."""
    parser = _parser()
    asked, rest = parser.parse_known_args(arguments)
    if rest and (asked.config or len(rest) > 1 or rest[0].startswith("-")):
        parser.error(f"unknown: {' '.join(rest)}")
    asked.config = Path(asked.config or (rest[0] if rest else DEFAULT))
    return asked


def _request(config: Config, asked: argparse.Namespace) -> int:
    from flows.terminal import command

    wish = command.request_of(
        config, asked.command, asked.endpoint or config.production, asked.by, asked.why,
        getattr(asked, "version", ""),
    )  # fmt: skip
    return command.give(config, wish, wait_s=0 if asked.no_wait else asked.wait_s)


def _question(config: Config, asked: argparse.Namespace) -> int:
    match asked.command:
        case "status":
            from flows.terminal import status

            return status.show(config, as_json=asked.json, file=str(asked.config))
        case "history":
            from flows.terminal import history

            return history.show(config, as_json=asked.json)
        case "show":
            from flows.terminal import show

            return show.show(config, asked.version)
        case "diff":
            from flows.terminal import diff

            return diff.show(config, asked.before, asked.after)
        case "plan":
            from flows.terminal import plan

            return plan.show(config)
        case "repair-ledger":
            from flows.terminal import repair

            return repair.show(config, str(asked.config))
        case "watch":
            from flows.terminal import watch

            return watch.show(config, asked.deployment, asked.param)
        case _:
            from flows.terminal import demo

            return demo.main(str(asked.config))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows", description="Ask and tell the loop."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in QUESTIONS.items():
        command = commands.add_parser(name, help=text, epilog=ENDS.get(name))
        if name in ("status", "history"):
            command.add_argument("--json", action="store_true")
        if name == "watch":
            command.add_argument(
                "--param", action="append", default=[], metavar="NAME=VALUE",
                type=console.whole_text, help="of the run; once for each",
            )  # fmt: skip
        _arguments(command, NAMES.get(name, ()))
    for name, text in REQUESTS.items():
        command = commands.add_parser(name, help=text)
        _who_and_why(command)
        _arguments(command, ("version",) if name == "rollout" else ())
    return parser


def _arguments(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for name in names:
        command.add_argument(name, type=console.whole_text)
    command.add_argument("config", nargs="?", help=f"{DEFAULT}, if not given")


def _who_and_why(command: argparse.ArgumentParser) -> None:
    text = console.whole_text
    command.add_argument("--why", required=True, type=text, help="one sentence for the ledger")
    command.add_argument("--by", default=_user(), type=text, help="who; you, if not given")
    command.add_argument("--endpoint", type=text, help="production, if not given")
    command.add_argument("--wait-s", type=_seconds, help="wait at most so many seconds")
    command.add_argument(
        "--no-wait", action="store_true", help="only write the request: 0 says it is written"
    )


def _seconds(text: str) -> float:
    """A waiting time that a person may mean."""
    seconds = float(text)
    if not 0 <= seconds <= WAIT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {WAIT_MAX_S} seconds")
    return seconds


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        return f"user {os.getuid()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
