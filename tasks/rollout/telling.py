"""Telling people of rollouts, from the ledger, and marking there what was told.

Whoever drives tells at once; the reconciler tells what is left. Each channel is marked by
itself, so that one that fails is tried again without repeating the others. Killed between
telling and marking, nobody can know, and it is told again with the same id: a channel that
knows ids tells people once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from deployments import Place, ledger
from deployments.files import exclusive
from policy.errors import Busy
from policy.ledger import Ledger, Untold
from policy.records import Told
from policy.rollout.record import Rollout

Times = Sequence[tuple[datetime, Rollout]]
"""The successive records of one rollout, with the times at which they were written."""
Channel = Callable[[Untold, Times], bool]
"""Tells people, given the rollout's records up to then with their times; False: try again."""

GIVEN_UP = timedelta(hours=24)


def tell(
    place: Place,
    channels: Mapping[str, Channel],
    *,
    run: str = "",
    rollout: str = "",
    older_than_s: float = 0.0,
) -> None:
    """Tell people of everything that nobody has told them yet, by each of `channels`.

    Args:
        run: the flow run that tells, for the ledger.
        rollout: tells only of this one; "" of all.
        older_than_s: what happened later is left to whoever drives.

    Raises what a channel raises; what was told until then is marked.
    """
    try:
        with exclusive(place.scratch / "telling.lock", "the telling of outcomes", wait_s=0):
            for untold in ledger.read(place.store).untold:
                if is_due(untold, place.clock.now(), older_than_s) and rollout in (
                    "",
                    untold.rollout,
                ):
                    _tell(place, channels, untold, run)
    except Busy:
        return  # another process on this machine is telling


def is_due(untold: Untold, now: datetime, older_than_s: float) -> bool:
    """Whether it happened so long ago; in the future means that the clock was set back."""
    age_s = (now - untold.at).total_seconds()
    return age_s >= older_than_s or age_s < 0


def _tell(place: Place, channels: Mapping[str, Channel], untold: Untold, run: str) -> None:
    records, failed = _times(place, untold), False
    for name, channel in channels.items():
        if name in untold.channels:
            continue
        if channel(untold, records):
            _mark(place, untold, name, run)
        else:
            failed = True
    if not failed or place.clock.now() - untold.at > GIVEN_UP:
        _mark(place, untold, "", run)


def _times(place: Place, untold: Untold) -> Times:
    """The rollout's records up to what is to be told, with their times, in order."""
    return [
        (record.at, rollout)
        for record in ledger.records(place.store, untold.first, untold.number)
        if (rollout := getattr(record.event, "rollout", None)) is not None
        and rollout.id == untold.rollout
    ]


def _mark(place: Place, untold: Untold, channel: str, run: str) -> None:
    def decide(state: Ledger) -> Told | None:
        known = next((u for u in state.untold if u.what == untold.what), None)
        if known is None or channel in known.channels:
            return None
        return Told(what=untold.what, channel=channel)

    ledger.append(place.store, decide, by="telling", run=run, now=place.clock.now)
