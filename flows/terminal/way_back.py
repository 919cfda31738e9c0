"""Could what serves be started again, and could a rollback succeed now? Only if it verifies."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments import Endangered, Place, Release
from deployments.console import Progress
from deployments.releases.checking import Checked, checked
from deployments.releases.signing import Trusted
from flows.terminal.problem import Commands, Problem
from flows.terminal.problems import Look
from policy.errors import StoreError
from policy.ledger import EndpointState, Ledger

_ROOM = 50 * 2**20  # bytes that a server needs beside its release
_RETRAIN = (
    "restore its release from a copy of the store, or make another version: "
    ".venv/bin/prefect deployment run retrain/on-demand"
)


@dataclass(frozen=True)
class Releases:
    """What was found of each release in the store, by digest; "" for one that nobody looked at.

    `unread` says why the store could not be read.
    """

    found: Mapping[str, Checked]
    unread: str = ""

    def signer(self, digest: str) -> str:
        """Fingerprint of the key whose signature of it holds; "" if none does."""
        return self.found[digest].signed_by if digest in self.found else ""


def target(at: EndpointState) -> str | None:
    """The version that a rollback would go to now; None if there is none."""
    under_way = at.unfinished
    if under_way is None:
        return at.before
    return under_way.version if under_way.rollback else under_way.stable


def look_at_releases(
    place: Place, state: Ledger, looks: list[Look], trusted: Trusted, progress: Progress
) -> Releases:
    """Verify what serves, and what a rollback of each endpoint would go to."""
    wanted = dict[str, str]()
    for look in looks:
        served = look.observed.servers if look.observed else {}
        wanted |= {server.digest: version for version, server in served.items()}
        at = state.endpoint(look.name)
        for version in (at.stable, target(at)):
            if version is not None and version in state.versions:
                wanted[state.versions[version].digest] = version
    found = dict[str, Checked]()
    try:
        for digest, version in wanted.items():
            release = Release(version, digest)
            progress.tell(f"verifying {version} …")
            found[digest] = checked(place.store, release, place.scratch, trusted)
    except StoreError as error:
        return Releases(found, str(error))
    return Releases(found)


def way_back(state: Ledger, look: Look, releases: Releases, scratch: Path) -> str:
    """Whether a rollback of an endpoint could succeed now, in words."""
    back = target(state.endpoint(look.name))
    if back is None:
        return "none: no version served before"
    known = state.versions.get(back)
    found = releases.found.get(known.digest) if known is not None else None
    if found is None:
        return f"{back}, NOT verified"
    served = look.observed.servers if look.observed else {}
    if found.problem or (back not in served and _no_room(found, scratch)):
        return f"{back}, NOT possible: see the problems below"
    return f"{back}, signed, whole"


def problems_of_releases(
    state: Ledger, look: Look, releases: Releases, scratch: Path, commands: Commands
) -> Iterator[Problem]:
    """What is wrong with the releases that serve at an endpoint, or would after a rollback."""
    at, observed = state.endpoint(look.name), look.observed
    served, back = observed.servers if observed else {}, target(at)
    for version, server in served.items():
        found = releases.found.get(server.digest)
        if found is not None and version != back:
            share = observed.weights.get(version, 0) if observed else 0
            harms: Endangered = "clients" if share else "nobody yet"
            yield from _served(look, version, found, harms, commands)
            yield from _signer(state, look, version, found, commands)
    if back is not None and back not in state.versions:
        told = "a rollback would go to it, and the ledger knows no such version"
        yield Problem(look.of(back), told, _RETRAIN, "rollbacks")
    elif back is not None and (found := releases.found.get(state.versions[back].digest)):
        room = "" if back in served else _no_room(found, scratch)
        yield from _back(look, back, found, room)
        yield from _signer(state, look, back, found, commands)


def _served(
    look: Look, version: str, found: Checked, harms: Endangered, commands: Commands
) -> Iterator[Problem]:
    if found.problem:
        what, do = _parts(found.problem)
        told = f"it could not be started again: {what}"
        yield Problem(look.of(version), told, do or look.command(commands, "rollback"), harms)


def _back(look: Look, version: str, found: Checked, room: str) -> Iterator[Problem]:
    if found.problem or room:
        what, do = _parts(found.problem or room)
        told = f"a rollback to it would fail: {what}"
        yield Problem(look.of(version), told, do or _RETRAIN, "rollbacks")


def _signer(
    state: Ledger, look: Look, version: str, found: Checked, commands: Commands
) -> Iterator[Problem]:
    """The signature of the release says who made it; the ledger only what was written there."""
    known = state.versions.get(version)
    ours = known.signed_by if known is not None else ""
    if ours and found.signed_by and ours != found.signed_by:
        theirs = found.signed_by[:12]
        told = f"its signature is by the key {theirs}, the ledger says {ours[:12]}"
        yield Problem(
            look.of(version), told, f"{commands.flows('show', version)}  # who did it?"
        )


def _parts(problem: str) -> tuple[str, str]:
    """What is wrong, and what to do where that is another thing than to go back."""
    what, _, do = problem.partition("; to do: ")
    return what, do if "signing.trusted" in do or "room" in do else ""


def _no_room(found: Checked, scratch: Path) -> str:
    """Why its copy could not be made; "" if it could."""
    needed, free = found.size + _ROOM, shutil.disk_usage(_existing(scratch)).free
    if needed <= free:
        return ""
    mb = f"{needed / 2**20:.0f} MB", f"{free / 2**20:.0f} MB"
    return f"it needs {mb[0]} in {scratch}, {mb[1]} are free; to do: make room there"


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
