"""What serves where, the last runs, the ledger's head, and whether all of it is well."""

import json
from dataclasses import asdict
from typing import Any

from policy.config import Config
from policy.errors import LedgerError
from policy.ledger import Ledger
from policy.rollout.record import Rollout

RUNS = 5
NOT_SIGNED = {"signed_by": "", "trusted": False}


def show(config: Config, *, as_json: bool) -> int:
    """Print the status; 0 if the stack is healthy and the ledger intact, else 1."""
    found = collect(config)
    print(json.dumps(found, indent=1, default=str) if as_json else table(found))
    return 0 if found["healthy"] else 1


def collect(config: Config) -> dict[str, Any]:
    """Look at every part; what is down is told, not raised."""
    from deployments.local.stack.health import health

    seen = health(config)
    state, broken = _ledger(config)
    signers = _signers(config, state)
    endpoints = [
        {**asdict(serving), "stable": state.endpoint(serving.name).stable,
         "versions": [{**asdict(served), **signers.get(served.version, NOT_SIGNED)}
                      for served in serving.versions],
         "rollout": _rollout(state.endpoint(serving.name).rollout)}
        for serving in seen.endpoints
    ]  # fmt: skip
    trusted = all(served["trusted"] for one in endpoints for served in one["versions"])
    return {
        "healthy": seen.well and not broken and trusted,
        "endpoints": endpoints,
        "programs": [asdict(program) for program in seen.programs],
        "prefect": {"url": seen.prefect_url, "up": seen.prefect_up},
        "runs": _runs(seen.prefect_url) if seen.prefect_up else [],
        "ledger": {"records": state.number, "head": state.head, "problem": broken},
    }


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = []
    for endpoint in found["endpoints"]:
        stable = endpoint["stable"] or "nothing yet"
        lines.append(f"{endpoint['name']}  {endpoint['url']}  stable: {stable}")
        if endpoint["problem"]:
            lines.append(f"  problem: {endpoint['problem']}")
        for served in endpoint["versions"]:
            state = "ready" if served["ready"] else f"not ready {served['problem']}"
            key = "" if found["ledger"]["problem"] else _told(served)
            lines.append(f"  {served['weight']:4} %  {served['version']}  {state}  {key}")
        if endpoint["rollout"]:
            told = "  last rollout: {version} {phase}: {reason}"
            lines.append(told.format_map(endpoint["rollout"]))
    down = [p for p in found["programs"] if p["state"] != "RUNNING"]
    lines.append(f"programs  {len(found['programs']) - len(down)} running, {len(down)} not")
    lines += [f"  {p['program']} is {p['state']}: see {p['log']}" for p in down]
    prefect = found["prefect"]
    lines.append(f"Prefect   {prefect['url']}  {'up' if prefect['up'] else 'down'}")
    lines += [f"  {run['start']:20} {run['flow']:10} {run['name']:34} {run['state']}"
              for run in found["runs"]]  # fmt: skip
    ledger = found["ledger"]
    chain = ledger["problem"] or "chain intact"
    lines.append(f"ledger    {ledger['records']} records, head {ledger['head'][:12]}, {chain}")
    lines.append("healthy" if found["healthy"] else "NOT healthy: make up repairs what is down")
    return "\n".join(lines)


def _ledger(config: Config) -> tuple[Ledger, str]:
    from deployments import ledger
    from deployments.store import open_store

    try:
        return ledger.read(open_store(config.root)), ""
    except LedgerError as error:
        return Ledger(), str(error)


def _told(served: dict[str, Any]) -> str:
    by = f"signed by {served['signed_by'][:12] or 'nobody'}"
    return by if served["trusted"] else f"{by}, NOT trusted: roll back or register it anew"


def _signers(config: Config, state: Ledger) -> dict[str, dict[str, Any]]:
    """Who signed each version, and whether that key is trusted today."""
    from deployments.releases.keys import trusted

    keys = trusted(config)
    signed = {name: known.registered.signed_by for name, known in state.versions.items()}
    return {name: {"signed_by": key, "trusted": key in keys} for name, key in signed.items()}


def _rollout(rollout: Rollout | None) -> dict[str, str] | None:
    if rollout is None:
        return None
    return {"version": rollout.version, "phase": rollout.phase, "reason": rollout.reason}


def _runs(url: str) -> list[dict[str, str]]:
    """The last runs of our flows, newest first, by Prefect's plain HTTP interface."""
    import httpx

    wanted = {
        "limit": RUNS,
        "sort": "START_TIME_DESC",
        "flow_runs": {"start_time": {"is_null_": False}},
    }
    with httpx.Client(base_url=f"{url}/api", timeout=10) as client:
        found = client.post("/flow_runs/filter", json=wanted).raise_for_status().json()
        flows = client.post("/flows/filter", json={}).raise_for_status().json()
    names = {flow["id"]: flow["name"] for flow in flows}
    return [
        {"name": run["name"], "flow": names.get(run["flow_id"], ""),
         "state": run["state_name"], "start": run["start_time"][:19]}
        for run in found
    ]  # fmt: skip
