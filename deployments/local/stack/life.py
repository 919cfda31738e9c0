"""The life of the local stack: what is started in which order, and how all of it ends.

`up` may be called at any time and repairs what is down. After a `down`, a reboot or the loss
of the scratch folder the same versions come back with the same weights: the reconciler, which
is one of the programs, brings each endpoint to what the ledger says.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from deployments.files import entries, is_full, write_changed
from deployments.local.envoy.program import endpoint_programs, program_of
from deployments.local.layout import Layout, is_of_scratch, layout_of
from deployments.local.servers import forget_outdated, local_of
from deployments.local.stack.orchestrator import (
    SERVER,
    environment,
    prefect_programs,
    start_prefect,
)
from deployments.local.stack.ports import require_free
from deployments.local.stack.privacy import make_private, require_own, require_own_links
from deployments.local.stack.serving import (
    RECONCILER,
    wait_for_endpoints,
    wait_for_models,
    wait_for_reconciler,
)
from deployments.local.stack.turns import turn
from deployments.local.stack.upkeep import keep_up
from deployments.local.stack.waiting import Say
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from deployments.local.tokens import require_tokens
from deployments.releases import keys
from deployments.store import open_store, require_create_if_absent
from policy.config import Config
from policy.errors import ConfigError, EndpointError, StoreError


def up(config: Config, say: Say, *, file: Path, deployments: bool = True) -> None:
    """Bring everything up and return once it is healthy and serves what the ledger says.

    Envoy and the model servers that a killed supervisord has left go on as they are. Another
    `up` or `down` of this stack is waited for.

    Args:
        say: is told each step, one line each.
        file: the configuration's own path, for those who read messages.
        deployments: also register the deployments of prefect.yaml in the current folder.

    Raises:
        PortTaken: before anything is started, naming the port and its setting.
        ConfigError: before anything is started, if releases could not be signed, or if root
            or scratch is another user's, or lies where another user's link leads.
        StoreError: before anything is started, if the ledger would not be safe in the store.
        EndpointError: if a part does not become healthy, with the tail of its log.
        Busy: if the other `up` or `down` does not end.
    """
    layout = layout_of(config)
    try:
        make_private(config, say)  # before even the lock is written into scratch
        with turn(layout, say):
            _up(config, layout, say, file, deployments)
    except (OSError, StoreError) as error:
        if is_full(error):
            raise _full(config, layout, error) from error
        if isinstance(error, OSError):
            raise EndpointError(
                f"the stack could not be started: {error}",
                holds="what is up stays up",
                do=f"see who owns what lies in {config.root} and {config.scratch}",
            ) from error
        raise


def _full(config: Config, layout: Layout, error: Exception) -> EndpointError:
    """What to say of a full disk, once what served is kept alive: that needs no room."""
    supervisor, served = Supervisor(layout), any(layout.programs.glob("*.conf"))
    if served and not supervisor.running():
        supervisor.start()
    return EndpointError(
        f"the disk of {config.root} or {config.scratch} is full: {error}",
        holds="what served is kept alive as it was" if served else "nothing was started",
        do="make room, then `make up` again",
    )


def _up(config: Config, layout: Layout, say: Say, file: Path, deployments: bool) -> None:
    make_private(config, say)  # again: a `clean` that was waited for has deleted them
    keep_up(config)
    keys.require_keys(config)
    require_create_if_absent(open_store(config.root, layout.scratch))
    supervisor = Supervisor(layout)
    if not supervisor.running():
        supervisor.end_orphans()
    check_ports(config, supervisor)
    require_tokens(config)
    for name in forget_outdated(supervisor):
        say(f"{name} was started by an older program, and is brought back as it is now")
    start_programs(config, programs(config, layout, file))
    wait_for_endpoints(config, say)
    start_prefect(config, supervisor, say, deployments=deployments)
    wait_for_reconciler(config, say)
    wait_for_models(config, say)


def stop(config: Config, say: Say) -> None:
    """Stop all that `up` and the endpoints started. Safe to repeat.

    Raises ConfigError if another user's link says where the stack lies.
    """
    require_own_links(config, "nothing was stopped")
    layout = layout_of(config)
    with turn(layout, say):
        say("stopping …")
        Supervisor(layout).shutdown()


def down(config: Config, say: Say) -> None:
    """Stop the stack, as `stop` does, and say that the data stays."""
    stop(config, say)
    say("stopped; the data stays in " + config.root)


def clean(config: Config, say: Say) -> None:
    """Delete all that this configuration kept on this machine; call it after `stop`.

    Of scratch only what this project makes there is deleted, and what is left is told.

    Raises ConfigError if `root` is not a folder that a ledger lies in, or if root or scratch
    is another user's, or lies where another user's link leads.
    """
    require_own(config, _STOPPED)
    scratch = layout_of(config).scratch
    root = None if "://" in config.root else Path(config.root).resolve()
    if root is not None:
        _require_ledger(config, root, scratch)
    deleted, gone = list[str](), ""
    if _delete_scratch(scratch):
        deleted.append(config.scratch)
    if root is not None and root.exists():
        lay = [(root / name, told) for name, told in _LAY.items() if (root / name).exists()]
        _delete(child for child in root.iterdir() if not _holds(child, scratch))
        with suppress(OSError):
            root.rmdir()
        deleted.insert(0, config.root)
        gone = _together([told for path, told in lay if not path.exists()])
    did = f"stopped, and deleted {_together(deleted)}" if deleted else _NOTHING
    lost = f": {gone} in it are gone" if gone else ""
    say(did + lost + (f"; what lies in {config.root} stays" if root is None else ""))
    for folder in [scratch] if root is None else [root, scratch]:
        if left := _left(folder, scratch):
            say(f"left in {folder}, as not made here or not to be deleted: {', '.join(left)}")


_STOPPED = "the stack is stopped and nothing was deleted"
_NOTHING = "stopped; there was nothing to delete"
_LAY = {"ledger": "the ledger", "releases": "the releases", "keys": "the signing key"}


def _require_ledger(config: Config, root: Path, scratch: Path) -> None:
    """A root without a ledger holds at most scratch, or is somebody else's."""
    if root.exists() and not (root / "ledger").is_dir():
        if all(_holds(child, scratch) for child in root.iterdir()):
            return
        raise ConfigError(
            f"root (={config.root}) is {root}, in which no ledger lies",
            expected="a folder that this project made",
            holds=_STOPPED,
            do="delete it by hand, if that is what you want",
        )


def _delete_scratch(scratch: Path) -> bool:
    """Delete what this project made there; whether it was more than what `stop` leaves."""
    if not scratch.is_dir():
        return False
    bare = [name for name, _ in entries(scratch)] == ["supervisor/turn.lock"]
    own = [child for child in scratch.iterdir() if is_of_scratch(child.name)]
    _delete(own)
    with suppress(OSError):
        scratch.rmdir()  # unless something else lies in it
    return bool(own) and not bare


def _delete(paths: Iterable[Path]) -> None:
    """As far as they can be deleted; of a link, the link."""
    for path in [*paths]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _left(folder: Path, scratch: Path) -> Sequence[str]:
    """What still lies in a folder, but for what is there only because scratch is."""
    if not folder.is_dir():
        return []
    inner = (child for child in folder.iterdir() if not _holds(child, scratch))
    return sorted(child.name for child in inner)


def _together(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _holds(folder: Path, scratch: Path) -> bool:
    """Whether scratch is still there, in or below a folder."""
    return scratch.exists() and scratch.is_relative_to(folder)


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
    write_changed(own, text)
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
    running = set(supervisor.lasting())
    if supervisor.running():
        running = {process.program for process in supervisor.processes() if process.alive}
    for setting, port, program in ports:
        if program not in running:
            require_free(port, setting)
