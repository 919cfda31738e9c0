"""What serves where, the last runs, the ledger's head, and whether all of it is well."""

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from deployments import Endpoint, Health, Observed, Place, connect, ledger
from deployments.console import Progress, one_line, say
from deployments.releases.keys import trusted
from flows.terminal.problems import Look, problems, signer, untold
from flows.terminal.runs import api_url, last_runs
from policy.config import Config
from policy.errors import ConfigError, EndpointSilent, LedgerError, StoreError
from policy.ledger import Ledger
from policy.rollout.record import Phase, Rollout, deadline_s, finished, stayed_s
from policy.words import duration
from tasks.rollout.lead import last_look


def show(config: Config, *, as_json: bool) -> int:
    """Print the status; 0 if everything is well, else 1."""
    found = collect(config, connect(config))
    say(json.dumps(found, indent=1, default=str) if as_json else table(found))
    return 0 if found["healthy"] else 1


def collect(config: Config, place: Place) -> dict[str, Any]:
    """Look at every part; what is down is told, not raised."""
    progress = Progress()
    health = place.health()
    progress.tell("looked at the programs …")
    wrong = {part.name: part.problem for part in health.parts if part.problem}
    state, broken = _ledger(place)
    keys, no_keys = _trusted(config)
    wrong |= {"ledger": broken} if broken else {}
    wrong |= {"signing": no_keys} if no_keys else {}
    endpoints = []
    for name, endpoint in place.endpoints.items():
        look = _look(config, place, endpoint)
        progress.tell(f"looked at {name} …")
        if not broken:
            wrong |= dict(problems(state, look, keys, place.clock.now()))
        elif look.observed is None:
            wrong[f"endpoint {name}"] = look.silent
        endpoints.append(_endpoint(config, place, health, state, look, keys))
    wrong |= dict(untold(state, place.clock.now()))
    runs, stuck = last_runs(config)
    wrong |= {"Prefect's runs": stuck} if stuck else {}
    return {
        "healthy": not wrong,
        "problems": wrong,
        "endpoints": endpoints,
        "parts": [asdict(part) for part in health.parts],
        "prefect": {"url": api_url(config)},
        "runs": runs,
        "ledger": {"records": state.number, "head": state.head, "problem": broken},
    }


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    lines: list[str] = []
    for endpoint in found["endpoints"]:
        stable = endpoint["stable"] or "nothing yet"
        lines.append(
            f"{endpoint['name']} ({endpoint['role']})  {endpoint['state']}  stable: {stable}"
        )
        for served in endpoint["versions"]:
            by = "" if found["ledger"]["problem"] else _signed(served)
            lines.append(
                f"  {served['weight']:4} %  {served['version']}  {served['state']}  {by}"
            )
        if endpoint["rollout"]:
            told = "  {label}: {version} {phase} for {since}: {reason}"
            lines.append(told.format_map(endpoint["rollout"]))
            if awaits := endpoint["rollout"]["awaits"]:
                lines.append(f"  {awaits}")
    parts = found["parts"]
    ill = sum(bool(part["problem"]) for part in parts)
    lines.append(f"parts     {len(parts) - ill} well, {ill} not")
    lines.append(f"Prefect   {found['prefect']['url'] or 'PREFECT_API_URL is not set'}")
    lines += [f"  {run['start']:20} {run['flow']:10} {run['name']:34} {run['state']}"
              for run in found["runs"]]  # fmt: skip
    kept = found["ledger"]
    chain = "NOT readable" if kept["problem"] else "chain intact"
    lines.append(f"ledger    {kept['records']} records, head {kept['head'][:12]}, {chain}")
    lines += [f"problem   {part}: {what}" for part, what in found["problems"].items()]
    lines.append("healthy" if found["healthy"] else "NOT healthy: see the problems above")
    return "\n".join(map(one_line_of, lines))


def one_line_of(text: str) -> str:
    """A person's words in one line, keeping the indent."""
    return text[: len(text) - len(text.lstrip())] + one_line(text)


def _ledger(place: Place) -> tuple[Ledger, str]:
    try:
        return ledger.read(place.store), ""
    except (LedgerError, StoreError) as error:
        return Ledger(), str(error)


def _trusted(config: Config) -> tuple[Collection[str], str]:
    try:
        return trusted(config), ""
    except ConfigError as error:
        return (), str(error)


def _look(config: Config, place: Place, endpoint: Endpoint) -> Look:
    observed, silent = None, ""
    try:
        observed = endpoint.observe()
    except EndpointSilent as error:
        silent = str(error)
    return Look(
        name=endpoint.name,
        observed=observed,
        silent=silent,
        last_look=last_look(place.scratch, endpoint.name),
        driven_here=config.place == "local",
    )


def _endpoint(
    config: Config,
    place: Place,
    health: Health,
    state: Ledger,
    look: Look,
    keys: Collection[str],
) -> dict[str, Any]:
    seen = look.observed
    parts = {part.name: part.state for part in health.parts}
    told = parts.get(f"endpoint {look.name}", "answers" if seen else "silent")
    return {
        "name": look.name,
        "role": config.endpoint(look.name).role,
        "state": told,
        "stable": state.endpoint(look.name).stable,
        "versions": _versions(config, state, seen, keys) if seen else [],
        "rollout": _rollout(state.endpoint(look.name).rollout, place),
        "last_look": look.last_look and look.last_look.isoformat(),
    }


def _versions(
    config: Config, state: Ledger, seen: Observed, keys: Collection[str]
) -> list[dict[str, Any]]:
    roles = {name: one.role for name, one in config.endpoints.items()}
    return [
        {"version": version, "state": server.state, "ready": server.state == "ready",
         "weight": seen.weights.get(version, 0), "stage": state.stage(version, roles),
         "signed_by": signer(state, version), "trusted": signer(state, version) in keys}
        for version, server in sorted(seen.servers.items())
    ]  # fmt: skip


def _signed(served: dict[str, Any]) -> str:
    by = f"signed by {served['signed_by'][:12] or 'nobody'}"
    return by if served["trusted"] else f"{by}, NOT trusted"


def _awaited(rollout: Rollout, stayed: float) -> str:
    """What a person is to say, and what happens otherwise; "" if nobody is waited for."""
    left = duration(max((deadline_s(rollout) or 0.0) - stayed, 0.0))
    end = f'--why "…" --endpoint {rollout.endpoint}; without it, rolled back in {left}'
    if rollout.paused:
        return f"paused: .venv/bin/python -m flows resume|promote|abort {end}"
    if rollout.phase is Phase.AWAITING_APPROVAL:
        return f"waits for a person: .venv/bin/python -m flows approve|reject {end}"
    return ""


def _rollout(rollout: Rollout | None, place: Place) -> dict[str, Any] | None:
    if rollout is None:
        return None
    stayed = stayed_s(rollout, place.clock.now())
    return {
        "label": "last rollout" if finished(rollout) else "rollout under way",
        "awaits": _awaited(rollout, stayed),
        "version": rollout.version, "phase": rollout.phase, "reason": rollout.reason,
        "since": duration(max(stayed, 0.0)), "stayed_s": stayed,
        "deadline_s": deadline_s(rollout),
    }  # fmt: skip
