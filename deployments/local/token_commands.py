"""The command `tokens`: who may ask the endpoints. What runs takes a change over at once."""

import argparse
from pathlib import Path
from typing import Any

from deployments import console
from deployments.local import endpoints_of, tokens
from policy.config import Config
from policy.errors import ConfigError, EndpointSilent


def add_to(commands: Any) -> None:  # argparse keeps the kind of its subparsers to itself
    """Describe the command to the parser of `python -m deployments.local`."""
    parser = commands.add_parser("tokens", help="who may ask: tokens add, remove, list")
    what = parser.add_subparsers(dest="what", required=True)
    for name, said in (("add", "make a token and print it, once"), ("remove", "end one")):
        changing = what.add_parser(name, help=said)
        changing.add_argument("name")
        changing.add_argument("config", type=Path)
        if name == "add":
            changing.add_argument(
                "--operator", action="store_true", help="may also name a version, read /metrics"
            )
    what.add_parser("list", help="names, roles and dates").add_argument("config", type=Path)


def run(asked: argparse.Namespace, config: Config) -> None:
    """Do it. Raises ConfigError, with nothing changed."""
    path = _file(config)
    if asked.what == "list":
        for token in tokens.read(path):
            console.say(f"{token.name:32} {token.role:8} {token.made}")
        return
    if asked.what == "add":
        secret = tokens.add(path, asked.name, "operator" if asked.operator else "client")
        _tell(config)
        console.complain(f"the token of {asked.name}, which nobody can show again:")
        console.say(secret)
    else:
        tokens.remove(path, asked.name)
        _tell(config)
        console.complain(f"{asked.name}'s token is no longer accepted")


def _file(config: Config) -> Path:
    if config.serving.tokens:
        return Path(config.serving.tokens)
    raise ConfigError(
        "serving.tokens is '': whoever reaches the port may ask",
        expected="a file for the tokens, such as .arr-coc/tokens.json",
        holds="nothing was changed",
        do="name one in the configuration, make a token, then make up",
    )


def _tell(config: Config) -> None:
    """Make every Envoy that runs take it now; the reconciler tells the others."""
    for name, endpoint in endpoints_of(config).items():
        try:
            endpoint.admit()
        except EndpointSilent as error:
            console.complain(
                f"{name} does not answer, so it takes this over within seconds of its return, "
                f"or with `make up` ({error})"
            )
