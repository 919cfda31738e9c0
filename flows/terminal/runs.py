"""The last runs of our flows, by plain HTTP: Prefect itself takes seconds to load."""

import os
from datetime import UTC, datetime, timedelta

import httpx

from policy.config import Config

RUNS = 5
LATE = timedelta(minutes=3)
_TIMEOUT_S = 10.0
Runs = list[dict[str, str]]


def api_url(config: Config) -> str:
    """Of the Prefect server; "" if the environment of a place elsewhere names none."""
    if config.local is not None:
        return f"http://127.0.0.1:{config.local.prefect_port}/api"
    return os.environ.get("PREFECT_API_URL", "")


def last_runs(config: Config) -> tuple[Runs, str]:
    """The last runs, newest first, and what is wrong with starting more; "" if nothing.

    That no server answers at all is told by the place's health.
    """
    url = api_url(config)
    if not url:
        return [], ""
    # A proxy that the environment names never reaches this machine.
    trust_env = config.local is None
    try:
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=trust_env) as client:
            return _read(client), _overdue(client)
    except httpx.HTTPStatusError as error:
        found = f"{error.request.url.path} answers {error.response.status_code}"
        return [], f"no run can be listed or started: {found}; to do: read prefect-server.log"
    except httpx.HTTPError:
        return [], ""


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
    return f"{late} runs should have started minutes ago; to do: make up" if late else ""
