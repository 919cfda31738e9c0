"""Everything about one version: scores, the gate's reasons, lineage, where it serves."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployments import Place, Release, connect, ledger
from deployments.console import Progress, say
from deployments.releases.checking import checked
from deployments.releases.keys import trusted
from flows.terminal.walks import Walk, path, walks
from policy.config import Config
from policy.errors import EndpointSilent
from policy.ledger import Version
from policy.records import Record, Registered, broken
from policy.words import one_line, percent

_SHORT = 12  # characters of a digest
_LINEAGE = (
    "dataset", "data_fingerprint", "model_code", "commit", "seed", "steps_max", "key",
    "wandb_run_id",
)  # fmt: skip


def show(config: Config, version: str) -> int:
    """Print all of it. Raises NotFound if there is no such version."""
    place = connect(config)
    state = ledger.read(place.store)
    event = ledger.registered(place.store, state, version)
    roles = {name: one.role for name, one in config.endpoints.items()}
    say(f"{version}  {state.stage(version, roles)}")
    known = state.version(version)
    since = _with_progress(ledger.records(place.store, known.number), state.number)
    for line in (
        *described(known, event, _signed_by(config, place, known)),
        *serving(place, version),
        *rollouts(walks(since), version),
    ):
        say(f"  {one_line(line)}")
    return 0


def _signed_by(config: Config, place: Place, known: Version) -> str:
    """By its own signature, if that holds and is trusted; the ledger may say anything."""
    release = Release(known.version, known.digest)
    found = checked(place.store, release, place.scratch, trusted(config, make=False))
    if found.problem:
        return f"no endpoint serves it: {found.problem}"
    differs = found.signed_by != known.signed_by
    ledgers = f"; the ledger says {known.signed_by[:_SHORT] or 'nobody'}" if differs else ""
    return f"{found.signed_by[:_SHORT]}, trusted{ledgers}"


def described(known: Version, event: Registered, signed_by: str) -> Iterator[str]:
    """What was recorded when it was registered."""
    yield f"registered  {known.at:%Y-%m-%d %H:%M:%S} by {known.by}, record {known.number}"
    yield f"release     {known.digest}"
    yield f"signed by   {signed_by}"
    families = ", ".join(f"{name} {percent(value)}" for name, value in event.families.items())
    yield f"accuracy    {percent(event.accuracy)}" + (f" ({families})" if families else "")
    for reason in event.reasons or ("no reasons were recorded",):
        yield f"gate        {reason}"
    yield from lineage(event.lineage)


def lineage(of: Mapping[str, str]) -> Iterator[str]:
    """What it was made of, shortened: digests to their first digits, packages to a count."""
    if "model_code" not in of:
        text = ", ".join(f"{name} {value}" for name, value in of.items())
        yield f"made of     {text or 'nothing is recorded'}"
        return
    known = {name: of.get(name, "not recorded") for name in _LINEAGE} | dict(of)
    dirty = ", with changes that were not committed" if of.get("dirty") == "true" else ""
    yield f"data        {known['dataset']}, {short(known['data_fingerprint'])}"
    yield f"code        {short(known['model_code'])}, commit {short(known['commit'])}{dirty}"
    training = f"seed {known['seed']}, at most {known['steps_max']} steps, run {known['key']}"
    yield f"training    {training}"
    packages = json_in(of, "packages")
    torch = f", torch {packages['torch']}" if "torch" in packages else ""
    yield f"packages    {len(packages)}{torch}; W&B run {known['wandb_run_id']}"


def json_in(of: Mapping[str, str], name: str) -> dict[str, Any]:
    """A part of a lineage that is itself JSON; {} if none. Raises LedgerError if it is not."""
    try:
        found = json.loads(of.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise broken(f"a version's lineage has no JSON for {name}") from error
    if not isinstance(found, dict):
        raise broken(f"a version's lineage has a {type(found).__name__} for {name}")
    return found


def serving(place: Place, version: str) -> Iterator[str]:
    """Where it has a server now, and its share of the requests."""
    found = False
    for name, endpoint in place.endpoints.items():
        try:
            observed = endpoint.observe()
        except EndpointSilent as error:
            yield f"serves      not known on {name}: {error}"
            continue
        server = observed.servers.get(version)
        if server is not None:
            found = True
            yield f"serves      {observed.weights.get(version, 0)} % of {name}, {server.state}"
    if not found:
        yield "serves      nowhere that answers"


def rollouts(all_: Iterable[Walk], version: str) -> Iterator[str]:
    """Its rollouts, the oldest first, with the weights that it had."""
    for walk in all_:
        if walk.version == version:
            began, ended = f"{walk.began:%Y-%m-%d %H:%M}", f"{walk.phase}: {walk.reason}"
            yield f"rollout     {began} {walk.endpoint} {path(walk)}, {ended}"


def short(digest: str) -> str:
    kind, colon, digits = digest.rpartition(":")
    return f"{kind}{colon}{digits[:_SHORT]}"


def _with_progress(records: Iterable[Record], of: int) -> Iterator[Record]:
    progress = Progress()
    for record in records:
        progress.tell(f"read record {record.number} of {of} …")
        yield record
