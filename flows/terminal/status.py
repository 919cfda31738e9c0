"""What serves where, the last runs, the ledger's head, and whether all of it is well."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from deployments import Endangered, Endpoint, Health, Observed, Place, connect
from deployments.console import Progress, say
from deployments.local.layout import layout_of
from deployments.local.stack.health import STOPPED
from deployments.local.stack.serving import RECONCILER
from deployments.releases.keys import trusted
from deployments.releases.signing import Trusted
from flows.terminal.ledger_look import LedgerLook, look_at_ledger, notes, problems_of_ledger
from flows.terminal.problem import Commands, Problem, ranked
from flows.terminal.problems import Look, problems, untold
from flows.terminal.runs import api_url, last_runs
from flows.terminal.way_back import (
    Releases,
    look_at_releases,
    problems_of_releases,
    target,
    way_back,
)
from policy.config import Config
from policy.errors import ConfigError, EndpointSilent
from policy.ledger import Ledger
from policy.rollout.record import Phase, Rollout, deadline_s, finished, shown, stayed_s
from policy.words import counted, duration, one_line
from tasks.rollout.lead import last_look


def show(config: Config, *, as_json: bool, file: str) -> int:
    """Print the status; 0 if everything is well, else 1. `file` is the configuration's."""
    found = collect(config, connect(config), Commands(file))
    say(json.dumps(found, indent=1, default=str) if as_json else table(found))
    return 0 if found["healthy"] else 1


def collect(config: Config, place: Place, commands: Commands) -> dict[str, Any]:
    """Look at every part; what is down is told, not raised."""
    progress, now = Progress(), place.clock.now
    health = place.health()
    progress.tell("reading the ledger …")
    kept = look_at_ledger(place)
    progress.tell("looking at the endpoints …")
    looks = [_look(config, place, health, one) for one in place.endpoints.values()]
    keys, no_keys = _trusted(config, kept.state)
    releases = Releases({})
    if keys is not None:
        releases = look_at_releases(place, kept.state, looks, keys, progress)
    runs, stuck = last_runs(config)
    wrong = [
        *_of_parts(health, kept, looks, commands),
        *problems_of_ledger(kept, place, _serving(looks), now(), commands),
        *_of_endpoints(place, kept, looks, releases, commands),
        *_texts({"signing": no_keys, "store": releases.unread}, "rollbacks", commands),
        *_texts({"Prefect's runs": stuck}, "nobody yet", commands),
    ]
    return {
        "healthy": not wrong,
        "problems": [asdict(problem) for problem in ranked(wrong)],
        "notes": notes(kept),
        "endpoints": [_endpoint(config, place, health, kept, look, releases) for look in looks],
        "parts": [asdict(part) for part in health.parts],
        "prefect": {"url": api_url(config)},
        "runs": runs,
        "ledger": _ledger(kept, wrong),
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
            by = (
                f"signed by {served['signed_by'][:12]}"
                if served["signed_by"]
                else "NOT verified"
            )
            lines.append(
                f"  {served['weight']:4} %  {served['version']}  {served['state']}  {by}"
            )
        lines.append(f"  way back        {endpoint['way_back']}")
        if endpoint["rollout"]:
            told = "  {label}: {version} {phase} {since}: {reason}"
            lines.append(told.format_map(endpoint["rollout"]))
            if awaits := endpoint["rollout"]["awaits"]:
                lines.append(f"  {awaits}")
    parts = found["parts"]
    ill = sum(bool(part["problem"]) or part["state"] == STOPPED for part in parts)
    lines.append(f"parts     {len(parts) - ill} running, {ill} not")
    lines.append(f"Prefect   {found['prefect']['url'] or 'PREFECT_API_URL is not set'}")
    lines += [f"  {run['start']:20} {run['flow']:10} {run['name']:34} {run['state']}"
              for run in found["runs"]]  # fmt: skip
    kept = found["ledger"]
    lines.append(
        f"ledger    {counted(kept['records'], 'record')}, head {kept['head'][:12]}, "
        f"{kept['chain']}"
    )
    lines += [f"note      {note}" for note in found["notes"]]
    for problem in found["problems"]:
        lines.append(f"problem   {problem['part']}: {problem['what']}")
        lines.append(f"  endangers {problem['endangers']}; to do: {problem['do']}")
    lines.append("healthy" if found["healthy"] else "NOT healthy: see the problems above")
    return "\n".join(map(one_line_of, lines))


def one_line_of(text: str) -> str:
    """A person's words in one line, keeping the indent."""
    return text[: len(text) - len(text.lstrip())] + one_line(text)


def _of_parts(
    health: Health, kept: LedgerLook, looks: list[Look], commands: Commands
) -> Iterator[Problem]:
    """What the place says of itself; of versions more is known here, if the ledger is."""
    silent = {look.part for look in looks if look.observed is None}
    versions = () if kept.broken else tuple(f"{look.part}: " for look in looks)
    for part in health.parts:
        if part.problem and part.name not in silent and not part.name.startswith(versions):
            yield commands.told(part.name, part.problem, part.endangers)


def _of_endpoints(
    place: Place, kept: LedgerLook, looks: list[Look], releases: Releases, commands: Commands
) -> Iterator[Problem]:
    now = place.clock.now()
    for look in looks:
        if not kept.broken:
            yield from problems(kept.state, look, now, commands)
        elif look.silent:
            yield commands.told(look.part, look.silent, "clients")
        yield from problems_of_releases(kept.state, look, releases, place.scratch, commands)
    yield from untold(kept.state, now, commands)


def _texts(of: dict[str, str], endangers: Endangered, commands: Commands) -> Iterator[Problem]:
    for part, text in of.items():
        if text:
            yield commands.told(part, text, endangers)


def _serving(looks: list[Look]) -> str:
    """What the endpoints serve, as one text; "" if they serve nothing."""
    split = {look.name: look.observed.weights for look in looks if look.observed}
    return ", ".join(f"{name} serves {shown(of)}" for name, of in split.items() if of)


def _ledger(kept: LedgerLook, wrong: list[Problem]) -> dict[str, Any]:
    told = next((problem.what for problem in wrong if problem.part == "ledger"), "")
    chain = "NOT readable" if kept.broken else "NOT whole" if told else "chain intact"
    head = {"records": kept.state.number, "head": kept.state.head}
    return {**head, "chain": chain, "problem": told}


def _trusted(config: Config, state: Ledger) -> tuple[Trusted | None, str]:
    """The keys, or why there are none; before the first release nobody misses them."""
    try:
        return trusted(config, make=False), ""
    except ConfigError as error:
        return None, f"no release can be verified: {error}" if state.versions else ""


def _look(config: Config, place: Place, health: Health, endpoint: Endpoint) -> Look:
    """One that is down with the whole stack is not a problem of its own."""
    states = {part.name: part.state for part in health.parts}
    observed, silent = None, ""
    try:
        observed = endpoint.observe()
    except EndpointSilent as error:
        silent = "" if states.get(f"endpoint {endpoint.name}") == STOPPED else str(error)
    return Look(
        name=endpoint.name,
        observed=observed,
        silent=silent,
        last_look=last_look(place.scratch, endpoint.name),
        driven_here=config.place == "local",
        default=endpoint.name == config.production,
        falls_back="fallback" in endpoint.can,
        driver_log=_driver_log(config, health),
    )


def _driver_log(config: Config, health: Health) -> str:
    """Of the reconciler that runs here; "" if none does."""
    runs = any(part.name == RECONCILER and not part.problem for part in health.parts)
    return str(layout_of(config).logs / f"{RECONCILER}.log") if runs else ""


def _way_back(place: Place, kept: LedgerLook, look: Look, releases: Releases) -> str:
    if kept.broken:
        return "not known: the ledger cannot be read"
    return way_back(kept.state, look, releases, place.scratch)


def _endpoint(
    config: Config,
    place: Place,
    health: Health,
    kept: LedgerLook,
    look: Look,
    releases: Releases,
) -> dict[str, Any]:
    at, seen = kept.state.endpoint(look.name), look.observed
    parts = {part.name: part.state for part in health.parts}
    told = parts.get(look.part, "answers" if seen else "silent")
    return {
        "name": look.name,
        "role": config.endpoint(look.name).role,
        "state": told,
        "stable": at.stable,
        "rollback_to": target(at),
        "way_back": _way_back(place, kept, look, releases),
        "versions": _versions(config, kept.state, seen, releases) if seen else [],
        "rollout": _rollout(at.rollout, place),
        "last_look": look.last_look and look.last_look.isoformat(),
    }


def _versions(
    config: Config, state: Ledger, seen: Observed, releases: Releases
) -> list[dict[str, Any]]:
    roles = {name: one.role for name, one in config.endpoints.items()}
    return [
        {"version": version, "state": server.state, "ready": server.state == "ready",
         "weight": seen.weights.get(version, 0), "stage": state.stage(version, roles),
         "signed_by": releases.signer(server.digest)}
        for version, server in sorted(seen.servers.items())
    ]  # fmt: skip


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
    lasted = duration(max(stayed, 0.0))
    return {
        "label": "last rollout" if finished(rollout) else "rollout under way",
        "awaits": _awaited(rollout, stayed),
        "version": rollout.version, "phase": rollout.phase, "reason": rollout.reason,
        "since": f"{lasted} ago" if finished(rollout) else f"for {lasted}", "stayed_s": stayed,
        "deadline_s": deadline_s(rollout),
    }  # fmt: skip
