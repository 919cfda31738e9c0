"""The life of the local stack: what is started in which order, and how all of it ends.

`up` may be called at any time and repairs what is down. After a `down`, a reboot or the loss
of the scratch folder the same versions come back with the same weights: the reconciler, which
is one of the programs, brings each endpoint to what the ledger says.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from deployments.files import write_whole
from deployments.local.envoy.configuration import TOKENS
from deployments.local.envoy.program import endpoint_programs, program_of
from deployments.local.layout import Layout, layout_of
from deployments.local.servers import local_of, program_name, servers_of
from deployments.local.stack.orchestrator import (
    SERVER,
    environment,
    prefect_programs,
    start_prefect,
)
from deployments.local.stack.ports import require_free
from deployments.local.stack.serving import (
    RECONCILER,
    wait_for_endpoints,
    wait_for_models,
    wait_for_reconciler,
)
from deployments.local.stack.waiting import Say
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from deployments.releases import keys
from deployments.store import open_store, require_create_if_absent
from policy.config import Config
from policy.errors import ConfigError, EndpointError


def up(config: Config, say: Say, *, file: Path, deployments: bool = True) -> None:
    """Bring everything up and return once it is healthy and serves what the ledger says.

    Args:
        say: is told each step, one line each.
        file: the configuration's own path, for those who read messages.
        deployments: also register the deployments of prefect.yaml in the current folder.

    Raises:
        PortTaken: before anything is started, naming the port and its setting.
        ConfigError: before anything is started, if releases could not be signed.
        StoreError: before anything is started, if the ledger would not be safe in the store.
        EndpointError: if a part does not become healthy, with the tail of its log.
    """
    layout = layout_of(config)
    keys.require_keys(config)
    require_create_if_absent(open_store(config.root, layout.scratch))
    supervisor = Supervisor(layout)
    if not supervisor.running():
        supervisor.end_orphans()
    check_ports(config, supervisor)
    _check_tokens(config, supervisor)
    start_programs(config, programs(config, layout, file))
    wait_for_endpoints(config, say)
    start_prefect(config, supervisor, say, deployments=deployments)
    wait_for_reconciler(config, say)
    wait_for_models(config, say)


def down(config: Config, say: Say) -> None:
    """Stop all that `up` and the endpoints started; the data stays. Safe to repeat."""
    supervisor = Supervisor(layout_of(config))
    say("stopping …")
    supervisor.shutdown()
    say("stopped; the data stays in " + config.root)


def clean(config: Config, say: Say) -> None:
    """Delete all that this configuration kept on this machine; call it after `down`.

    Raises ConfigError if `root` is no folder that a ledger lies in.
    """
    if "://" not in config.root:
        root = Path(config.root).resolve()
        if root.exists() and not (root / "ledger").is_dir() and any(root.iterdir()):
            raise ConfigError(
                f"root (={config.root}) is {root}, in which no ledger lies",
                expected="a folder that this project made",
                holds="nothing was deleted",
                do="delete it by hand, if that is what you want",
            )
        shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(layout_of(config).scratch, ignore_errors=True)
    say(f"deleted {config.root} and {config.scratch}, as far as they are on this machine")


def start_programs(config: Config, wanted: Sequence[Program]) -> None:
    """Make supervisord run and keep `wanted`; what already runs unchanged goes on.

    Model servers that are down, given up or not, are started too.
    """
    supervisor = Supervisor(layout_of(config))
    if not supervisor.running():
        supervisor.start()
    for program in wanted:
        supervisor.apply(program)
    by_itself = (name for name, p in supervisor.written().items() if p["autostart"] == "true")
    for name in by_itself:
        supervisor.start_program(name)


def programs(config: Config, layout: Layout, file: Path) -> Sequence[Program]:
    """Everything but the model servers, in the order of starting."""
    endpoints, reconciler = endpoint_programs(config, layout), _reconciler(config, layout, file)
    return [*endpoints, *prefect_programs(config), reconciler]


def _reconciler(config: Config, layout: Layout, file: Path) -> Program:
    """Who is always there, and answers Prometheus, with the configuration as it is now."""
    own, text = layout.supervisor / "reconciler.json", config.model_dump_json(indent=1)
    write_whole(own, text)
    return Program(
        name=RECONCILER,
        command=[sys.executable, "-m", "tasks.reconciler", str(own), str(file.resolve())],
        # Another configuration is another program; supervisord restarts what has changed.
        environment={
            **environment(config),
            "CONFIG": hashlib.sha256(text.encode()).hexdigest(),
            "MALLOC_ARENA_MAX": "2",  # its few threads share two heaps
        },
        folder=Path.cwd(),
    )


def check_ports(config: Config, supervisor: Supervisor) -> None:
    """Every port of a program that does not run must be free. Raises PortTaken."""
    local = local_of(config)
    ports = [
        ("local.prefect_port", local.prefect_port, SERVER),
        ("local.metrics_port", local.metrics_port, RECONCILER),
    ]
    for name, one in local.endpoints.items():
        setting, envoy = f"local.endpoints.{name}", program_of(name)
        ports += [(f"{setting}.port", one.port, envoy)]
        ports += [(f"{setting}.admin_port", one.admin_port, envoy)]
        for server in servers_of(supervisor, name):
            program = program_name(name, server.version)
            ports += [("local.model_ports", port, program) for port in server.ports]
    seen = supervisor.processes() if supervisor.running() else []
    running = {process.program for process in seen if process.alive}
    for setting, port, program in ports:
        if program not in running:
            require_free(port, setting)


def _check_tokens(config: Config, supervisor: Supervisor) -> None:
    """The environment in which supervisord started is the one that its programs have."""
    if config.serving.tokens_required and not os.environ.get(TOKENS, "").strip(", "):
        raise ConfigError(
            f"serving.tokens_required is true, but {TOKENS} holds no token",
            expected="bearer tokens in the environment, separated by commas",
            holds="nothing was started",
        )
    theirs = supervisor.environment().get(TOKENS, "") if supervisor.running() else None
    if theirs is not None and theirs != os.environ.get(TOKENS, ""):
        raise EndpointError(
            f"{TOKENS} differs from when the stack was started",
            holds="the tokens of then are accepted",
            do="`make down`, then `make up`",
        )
