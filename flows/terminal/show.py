"""Everything about one version: scores, the gate's reasons, lineage, where it serves."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping

from deployments import Place, connect, ledger
from deployments.console import Progress, one_line, say
from deployments.releases.keys import trusted
from flows.terminal.walks import Walk, path, walks
from policy.config import Config
from policy.errors import EndpointSilent
from policy.ledger import Version
from policy.records import Record, Registered
from policy.words import percent

_SHORT = 12  # characters of a digest


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
        *described(known, event, trusted(config)),
        *serving(place, version),
        *rollouts(walks(since), version),
    ):
        say(f"  {one_line(line)}")
    return 0


def described(known: Version, event: Registered, keys: Collection[str]) -> Iterator[str]:
    """What was recorded when it was registered."""
    yield f"registered  {known.at:%Y-%m-%d %H:%M:%S} by {known.by}, record {known.number}"
    yield f"release     {known.digest}"
    trust = "trusted" if known.signed_by in keys else "NOT trusted: no endpoint serves it"
    yield f"signed by   {known.signed_by[:_SHORT] or 'nobody'}, {trust}"
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
    dirty = ", with changes that were not committed" if of.get("dirty") == "true" else ""
    yield f"data        {of['dataset']}, {short(of['data_fingerprint'])}"
    yield f"code        {short(of['model_code'])}, commit {short(of['commit'])}{dirty}"
    yield f"training    seed {of['seed']}, at most {of['steps_max']} steps, run {of['key']}"
    packages = json.loads(of["packages"])
    torch = f", torch {packages['torch']}" if "torch" in packages else ""
    yield f"packages    {len(packages)}{torch}; W&B run {of['wandb_run_id']}"


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
