"""What of the local stack runs, and what serves where."""

import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from deployments import Endangered, Health, Observed, Part
from deployments.local import endpoints_of, loopback
from deployments.local.endpoint import EnvoyEndpoint
from deployments.local.layout import layout_of
from deployments.local.servers import local_of, program_name
from deployments.local.stack.orchestrator import server_problem, server_url
from deployments.local.stack.ports import held_by_another
from deployments.local.stack.serving import RECONCILER
from deployments.local.supervisor.programs import Process, Supervisor
from deployments.local.tokens import problem
from policy.config import Config
from policy.errors import EndpointError, EndpointSilent

_FREE_MIN = 200 * 2**20  # bytes
Looks = Sequence[tuple[EnvoyEndpoint, Observed | EndpointSilent]]
_STARTS_S = 60.0  # for so long a new version's server may take to start, and the reconciler
_REACTS_S = 2.0
STOPPED = "stopped"
"""The state of a part that is down because all of the stack is, which is one problem."""


def health(config: Config) -> Health:
    """Look at every part; a part that is down is told, not raised."""
    supervisor = Supervisor(layout_of(config))
    supervised = supervisor.running()
    looks = [(endpoint, _observed(endpoint)) for endpoint in endpoints_of(config).values()]
    silent = all(isinstance(seen, EndpointSilent) for _, seen in looks)
    stopped = not supervised and silent and bool(server_problem(config))
    parts = [*_programs(config, supervisor, looks)] if supervised else [_unsupervised(stopped)]
    for endpoint, seen in looks:
        parts += (
            [_stopped(f"endpoint {endpoint.name}")] if stopped else _endpoint(endpoint, seen)
        )
    prefect = _stopped("Prefect") if stopped else _prefect(config)
    return Health((*parts, *_disks(config), *_tokens(config), prefect))


def _observed(endpoint: EnvoyEndpoint) -> Observed | EndpointSilent:
    try:
        return endpoint.observe()
    except EndpointSilent as error:
        return error


def _idle(looks: Looks) -> Collection[str]:
    """The programs of the versions that get no requests."""
    return {
        program_name(endpoint.name, version)
        for endpoint, seen in looks
        if isinstance(seen, Observed)
        for version in seen.servers
        if not seen.weights.get(version, 0)
    }


def _stopped(name: str) -> Part:
    return Part(name, STOPPED)


def _unsupervised(stopped: bool) -> Part:
    told = "the stack is stopped" if stopped else "nothing is kept alive"
    return Part("supervisord", "down", f"{told}; to do: make up", endangers="clients")


def _tokens(config: Config) -> Iterator[Part]:
    if config.serving.tokens:
        found = problem(config)
        yield Part("tokens", "nobody is let in" if found else "in force", found)


def _disks(config: Config) -> Iterator[Part]:
    folders = {"scratch": layout_of(config).scratch}
    folders |= {} if "://" in config.root else {"root": Path(config.root).resolve()}
    for name, folder in folders.items():
        if folder.exists():
            free = shutil.disk_usage(folder).free
            few = f"only {free / 2**20:.0f} MB free; to do: make room in {folder}"
            told = few if free < _FREE_MIN else ""
            yield Part(f"disk of {name}", "in use", told, endangers="rollbacks")
            yield from _private(name, folder)


def _private(name: str, folder: Path) -> Iterator[Part]:
    """Ledger, logs and keys are nobody else's business."""
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        told = f"others on this machine may look into it (mode {mode:o}); to do: chmod 700 "
        yield Part(f"folder of {name}", "open", f"{told}{folder}")


def _programs(config: Config, supervisor: Supervisor, looks: Looks) -> Iterator[Part]:
    yield Part("supervisord", "up")
    try:
        for process in supervisor.processes():
            unread = process.program == RECONCILER and _unread(process, config)
            if unread:
                yield _port_taken(config)
            hangs = process.program == RECONCILER and not unread and _hangs(process, config)
            yield _hanging(process, looks) if hangs else program_part(process, _idle(looks))
    except EndpointError as error:
        yield Part("programs", "unknown", str(error), endangers="clients")


def program_part(process: Process, idle: Collection[str]) -> Part:
    """One process; the server of a version in `idle` harms no client, and may start."""
    single = process.process == process.program
    name = process.program if single else f"{process.program} {process.process}"
    up = time.strftime("%H:%M:%S", time.gmtime(process.uptime_s))
    state = process.state.lower()
    starts = process.state == "STARTING" and process.uptime_s < _STARTS_S
    well = process.state == "RUNNING" or (starts and process.program in idle)
    told = "" if well else f"{state}: see {process.log}; to do: make up"
    harms = _needed_by(process.program, idle)
    return Part(name, f"{state}, pid {process.pid}, up {up}", told, harms)


def _hangs(process: Process, config: Config) -> bool:
    """Whether the reconciler runs and lets everybody wait: it lives, and does nothing."""
    if process.state != "RUNNING" or process.uptime_s <= _STARTS_S:
        return False
    # Not /metrics, which asks every Envoy: one of those may be what hangs.
    return not loopback.reacts(local_of(config).metrics_port, "/", _REACTS_S)


def _unread(process: Process, config: Config) -> bool:
    """Whether the reconciler runs without metrics, for somebody else has their port."""
    port = local_of(config).metrics_port
    return process.state == "RUNNING" and held_by_another(port, process.pid)


def _port_taken(config: Config) -> Part:
    told = f"port {local_of(config).metrics_port} (local.metrics_port) is another program's; "
    told += "the reconciler goes on without; to do: end that program, or set another port "
    return Part("metrics", "not served", f"{told}and make up")


def _hanging(process: Process, looks: Looks) -> Part:
    """Clients are harmed where a canary has a share that nobody watches."""
    told = f"hung, pid {process.pid}; to do: make up"
    split = any(isinstance(seen, Observed) and len(seen.weights) > 1 for _, seen in looks)
    return Part(process.program, "hung", told, "clients" if split else "rollbacks")


def _needed_by(program: str, idle: Collection[str]) -> Endangered:
    if program == RECONCILER:
        return "rollbacks"
    serves = program.startswith(("envoy-", "model-")) and program not in idle
    return "clients" if serves else "nobody yet"


def _endpoint(endpoint: EnvoyEndpoint, observed: Observed | EndpointSilent) -> Iterator[Part]:
    name, url = f"endpoint {endpoint.name}", endpoint.url
    if isinstance(observed, EndpointSilent):
        yield Part(name, f"silent at {url}", str(observed), endangers="clients")
        return
    closed = ", ".join(endpoint.closed())
    unheard = f"nobody listens at {closed}; to do: make up" if closed else ""
    yield Part(name, "closed" if closed else f"up at {url}", unheard, endangers="clients")
    yield from _lasting(name, endpoint)
    for version, server in sorted(observed.servers.items()):
        share = observed.weights.get(version, 0)
        unready = f"{share} % of the requests go to it; to do: make up"
        reason = server.reason or (unready if share and server.state != "ready" else "")
        harms: Endangered = "clients" if share else "nobody yet"
        yield Part(f"{name}: {version}", f"{server.state}, {share} %", reason, harms)


def _lasting(name: str, endpoint: EnvoyEndpoint) -> Iterator[Part]:
    """What still serves, but only until its Envoy or a connection ends."""
    try:
        lost, cut_off = endpoint.unwritten(), ", ".join(endpoint.cut_off())
        hung = ", ".join(endpoint.hung())
    except EndpointSilent as error:
        yield Part(f"{name}: files", "unknown", str(error), endangers="rollbacks")
        return
    yield Part(f"{name}: files", "lost" if lost else "in force", lost, endangers="rollbacks")
    if cut_off:
        told = f"the sockets of {cut_off} were deleted; to do: make up"
        yield Part(f"{name}: sockets", "gone", told, endangers="clients")
    if hung:
        told = f"{hung} runs but does not answer; to do: make up"
        yield Part(f"{name}: servers", "hung", told, endangers="clients")


def _prefect(config: Config) -> Part:
    problem, url = server_problem(config), server_url(local_of(config))
    return Part("Prefect", "down" if problem else f"up at {url}", problem)
