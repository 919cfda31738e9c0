"""Which version is to have all traffic if the ledger is away when a process starts.

    <scratch>/driving/<endpoint>.stable   the stable version of a rollout under way

Whoever looks writes it before the canary gets traffic and takes it away at the end, so that a
process that starts while nobody can read the ledger still knows whom to trust.
"""

from contextlib import suppress
from pathlib import Path

from deployments.files import write_whole
from policy.rollout.record import Rollout, finished


def keep_safe_version(scratch: Path, rollout: Rollout) -> None:
    """Remember it, if that is news; a full disk leaves what was known before."""
    stable = None if finished(rollout) else rollout.stable
    if stable == safe_version(scratch, rollout.endpoint):
        return
    path = _path(scratch, rollout.endpoint)
    with suppress(OSError):
        if stable is None:
            path.unlink(missing_ok=True)
        else:
            write_whole(path, stable)


def safe_version(scratch: Path, endpoint: str) -> str | None:
    """Raises nothing: what cannot be read is not known."""
    try:
        return _path(scratch, endpoint).read_text() or None
    except (OSError, ValueError):
        return None


def _path(scratch: Path, endpoint: str) -> Path:
    return scratch / "driving" / f"{endpoint}.stable"
