"""The Prefect server of the local stack, its one worker, and what prefect.yaml declares.

Only its programs and its plain HTTP interface are used here; flows and tasks import it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx

from deployments.local import loopback
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack import login
from deployments.local.stack.runs import POOL, DeadRuns, Server
from deployments.local.stack.waiting import Say, wait_for
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from deployments.secrets import PREFECT_LOGIN, PREFECT_SERVER_LOGIN, without_secrets
from policy.config import Config, Local
from policy.errors import ArrCocError, EndpointError, JobFailed

SERVER, WORKER = "prefect-server", "prefect-worker"
_PREFECT = "deployments.local.stack.lean"


def environment(config: Config) -> Mapping[str, str]:
    """What a shell or a flow needs to reach this stack's Prefect server; the login is in it.

    Raises ConfigError if the login is not safe.
    """
    return {
        "PREFECT_API_URL": login.api_url(config),
        PREFECT_LOGIN: login.make_login(config),
        "PREFECT_HOME": str(layout_of(config).prefect),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Prefect's own clients ask the environment for a proxy, which never reaches us. Both
        # spellings: programs differ in which one they believe.
        "NO_PROXY": (direct := _without_proxy()),
        "no_proxy": direct,
    }


def _without_proxy() -> str:
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    return ",".join(dict.fromkeys([*filter(None, known.split(",")), "127.0.0.1", "localhost"]))


def prefect_programs(config: Config) -> Sequence[Program]:
    local, here = local_of(config), Path.cwd()
    prefect = [sys.executable, "-m", _PREFECT]
    port = str(local.prefect_port)
    server = Program(
        name=SERVER,
        command=[*prefect, "server", "start", "--host", "127.0.0.1", "--port", port],
        environment={
            **environment(config),
            **_guard(config),
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # Who has which slot must outlive the server: in memory, the count of the taken
            # ones would stay in the database and nobody could give them back.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            # The server of one machine looks round less often: that halves what it takes idle.
            "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "30",
            "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "60",
            "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "15",
            "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "30",
            "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "30",
            # A run without a worker has nobody who says that it was cancelled.
            "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "90",
            # One write for each event of a task keeps SQLite so busy that other requests are
            # refused with 503, which costs a flow 2 to 6 s each time. Together once a second:
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
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
            # How long a run waits to be picked up; each look costs 1 % of a core.
            "PREFECT_WORKER_QUERY_SECONDS": "1.5",
            "ARR_COC_TEMPORARY": str(layout_of(config).worker),
        },
        folder=here,
        autostart=False,  # it needs the server and its pool
        stop_s=20,
        signs=True,
    )
    return [server, worker]


def _guard(config: Config) -> Mapping[str, str]:
    """Without the login the server does nothing for anybody, and no page of another origin
    may read its answers or make a signed-in browser change something.
    """
    return {
        PREFECT_SERVER_LOGIN: login.make_login(config),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        # Its own pages need nothing of the kind: they ask the server that they came from.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": server_url(local_of(config)),
        "PREFECT_SERVER_CORS_ALLOWED_METHODS": "GET",
        "PREFECT_SERVER_CORS_ALLOWED_HEADERS": "Accept",
        "PREFECT_UI_API_URL": "/api",
    }


def start_prefect(
    config: Config, supervisor: Supervisor, say: Say, *, deployments: bool
) -> None:
    local, logs = local_of(config), layout_of(config).logs
    log = logs / f"{SERVER}.log"
    hopeless = partial(supervisor.given_up, SERVER)
    wait_for("Prefect server", lambda: server_healthy(local), 180, log, say, hopeless)
    with login.client(config) as asking:
        _make_pool(asking)
        if worker_pid(config) is None:
            _end_dead_runs(asking, say)
        supervisor.start_program(WORKER)
        if deployments:
            _register(config, say)
        log = logs / f"{WORKER}.log"
        online = partial(_worker_online, asking, supervisor)
        hopeless = partial(supervisor.given_up, WORKER)
        wait_for("Prefect worker", online, 120, log, say, hopeless)


def worker_pid(config: Config) -> int | None:
    """The process of the worker that lives now, if one does."""
    found = Supervisor(layout_of(config)).processes()
    return next((p.pid for p in found if p.program == WORKER and p.pid), None)


def _end_dead_runs(asking: httpx.Client, say: Say) -> None:
    """Free the slots of runs that did not survive; without a worker nobody starts one now."""
    try:
        for line in DeadRuns(Server(asking), lambda: None).round():
            say(line)
    except httpx.HTTPError as error:
        say(f"runs that nobody runs any more are ended later, by the reconciler: {error}")


def server_url(local: Local) -> str:
    return loopback.url(local.prefect_port)


def server_healthy(local: Local) -> bool:
    """Whether a server answers there, whosever it is."""
    return loopback.answers(local.prefect_port, "/api/health")


def server_problem(config: Config) -> str:
    """Why the server can do nothing for us, and what to do; "" if it can."""
    url = server_url(local_of(config))
    try:
        with login.client(config) as asking:
            status = asking.get("/admin/version").status_code
    except httpx.HTTPError:
        return f"no answer at {url}; to do: make up"
    except ArrCocError as error:
        return str(error)
    if status == httpx.codes.UNAUTHORIZED:
        return f"the server at {url} does not take this stack's login; to do: make up"
    return "" if status == httpx.codes.OK else f"it answers {status}; read {SERVER}.log"


def _make_pool(asking: httpx.Client) -> None:
    """Make the work pool; the worker fills in the job template of its own version."""
    pool = {"name": POOL, "type": "process"}
    reply = asking.post("/work_pools/", json=pool, timeout=30)
    if reply.status_code not in (201, 409):
        raise EndpointError(f"the work pool {POOL} was not made: {reply.text[:300]}")


def _worker_online(asking: httpx.Client, supervisor: Supervisor) -> bool:
    """Whether the worker that runs now has reported to the server; older ones do not count."""
    up_s = [p.uptime_s for p in supervisor.processes() if p.program == WORKER and p.pid]
    try:
        reply = asking.post(f"/work_pools/{POOL}/workers/filter", json={})
        workers = reply.raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return False
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers]
    return bool(up_s) and any(time.time() - b.timestamp() < up_s[0] + 1 for b in beats)


def _register(config: Config, say: Say) -> None:
    """Register what prefect.yaml of the current folder declares. Raises JobFailed."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", _PREFECT, "--no-prompt", "deploy", "--all"],
        env={**without_secrets(os.environ), **environment(config)},
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
