"""The last runs of our flows, by plain HTTP: Prefect itself takes seconds to load."""

import os

import httpx

from policy.config import Config

RUNS = 5
_TIMEOUT_S = 10.0


def api_url(config: Config) -> str:
    """Of the Prefect server; "" if the environment of a place elsewhere names none."""
    if config.local is not None:
        return f"http://127.0.0.1:{config.local.prefect_port}/api"
    return os.environ.get("PREFECT_API_URL", "")


def last_runs(config: Config) -> list[dict[str, str]]:
    """Newest first; none if the server does not answer, which the place's health tells."""
    url = api_url(config)
    if not url:
        return []
    # A proxy that the environment names never reaches this machine.
    trust_env = config.local is None
    try:
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=trust_env) as client:
            return _read(client)
    except httpx.HTTPError:
        return []


def _read(client: httpx.Client) -> list[dict[str, str]]:
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
