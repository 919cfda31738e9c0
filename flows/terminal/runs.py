"""The last runs of our flows, by plain HTTP: Prefect itself takes seconds to load."""

import os
from datetime import UTC, datetime, timedelta

import httpx

from deployments.local.stack import login
from deployments.local.stack.orchestrator import server_healthy
from deployments.local.stack.runs import UNDER_WAY
from deployments.secrets import PREFECT_LOGIN
from policy.config import Config
from policy.errors import ArrCocError
from policy.words import counted

RUNS = 5
LATE = timedelta(minutes=3)
_TIMEOUT_S = 10.0
Runs = list[dict[str, str]]


def api_url(config: Config) -> str:
    """Of the Prefect server; "" if the environment of a place elsewhere names none."""
    if config.local is not None:
        return login.api_url(config)
    return os.environ.get("PREFECT_API_URL", "")


def last_runs(config: Config) -> tuple[Runs, str]:
    """The last runs, newest first, and what is wrong with starting more; "" if nothing.

    That no server answers at all is told by the place's health.
    """
    if not api_url(config) or (config.local is not None and not server_healthy(config.local)):
        return [], ""
    try:
        with _client(config) as client:
            if stuck := _unreadable(client):
                return [], stuck
            return _read(client), _overdue(client)
    except ArrCocError as error:
        return [], str(error)
    except httpx.HTTPStatusError as error:
        return [], _refused(error)
    except httpx.HTTPError:
        return [], ""


def _client(config: Config) -> httpx.Client:
    """With the login of this stack; elsewhere, with the one that the environment has."""
    if config.local is not None:
        made = login.client(config)
        made.timeout = _TIMEOUT_S
        return made
    url = api_url(config)
    known = login.LoggedIn(url, lambda: os.environ.get(PREFECT_LOGIN, ""))
    return httpx.Client(base_url=url, timeout=_TIMEOUT_S, auth=known)


def _refused(error: httpx.HTTPStatusError) -> str:
    found = f"{error.request.url.path} answers {error.response.status_code}"
    do = "read prefect-server.log"
    if error.response.status_code == httpx.codes.UNAUTHORIZED:
        do = f"make up; elsewhere, set {PREFECT_LOGIN}"
    return f"no run can be listed or started: {found}; to do: {do}"


def _read(client: httpx.Client) -> Runs:
    wanted = {
        "limit": RUNS,
        "sort": "START_TIME_DESC",
        "flow_runs": {"start_time": {"is_null_": False}},
    }
    found = client.post("/flow_runs/filter", json=wanted).raise_for_status().json()
    flows = client.post("/flows/filter", json={}).raise_for_status().json()
    names = {flow["id"]: flow["name"] for flow in flows}
    return [
        {"name": run["name"], "flow": names.get(run["flow_id"], ""),
         "state": run["state_name"], "start": run["start_time"][:19]}
        for run in found
    ]  # fmt: skip


def _unreadable(client: httpx.Client) -> str:
    """A run that the server stored and cannot tell, such as one whose parameters hold half a
    character: it would hold up every other run of the worker for good.
    """
    waiting = {"flow_runs": {"state": {"type": {"any_": [*UNDER_WAY, "SCHEDULED"]}}}}
    if client.post("/flow_runs/filter", json=waiting).is_success:
        return ""
    found = client.post("/ui/flow_runs/history", json=waiting).raise_for_status().json()
    ids = [run["id"] for run in found]
    bad = [id for id in ids if client.get(f"/flow_runs/{id}").is_server_error]
    if not bad:
        return ""
    return (
        f"Prefect cannot read run {bad[0]}, and starts no other any more; to do: "
        f'eval "$(make -s env)" && .venv/bin/prefect --no-prompt flow-run delete {bad[0]}'
    )


def _overdue(client: httpx.Client) -> str:
    """Runs that should have started minutes ago: the worker does not get to them."""
    before = (datetime.now(UTC) - LATE).isoformat()
    waiting = {
        "state": {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": ["Scheduled", "Late"]}},
        "expected_start_time": {"before_": before},
    }
    late = (
        client.post("/flow_runs/count", json={"flow_runs": waiting}).raise_for_status().json()
    )
    told = f"{counted(late, 'run')} should have started minutes ago; to do: make up"
    return told if late else ""
