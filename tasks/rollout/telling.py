"""Reports and messages about rollouts, made from the ledger and marked there once sent.

Whoever drives tells at once; the reconciler tells what is left. Each report and each message
is marked by itself, so that one that fails is tried again without repeating the others.
"""

from datetime import timedelta

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from deployments import Place, ledger
from deployments.files import exclusive
from policy.config import Config
from policy.errors import Busy
from policy.ledger import Ledger, Untold
from policy.records import Told
from policy.rollout.record import Phase
from tasks.logs import logger
from tasks.reports.rollout import Times, report
from tasks.rollout.notification import send

REPORT = "report"
GIVEN_UP = timedelta(hours=24)


def tell(config: Config, place: Place, file: str, *, older_than_s: float = 0.0) -> None:
    """Tell people of everything that nobody has told them yet.

    Args:
        file: the configuration's, for those who answer in a terminal.
        older_than_s: what happened later is left to whoever drives.

    Raises what Prefect raises; what was told until then is marked.
    """
    try:
        with exclusive(place.scratch / "telling.lock", "the telling of outcomes", wait_s=0):
            state = ledger.read(place.store)
            for untold in state.untold:
                if place.clock.now() - untold.at >= timedelta(seconds=older_than_s):
                    _tell(config, place, untold, file)
    except Busy:
        return  # another process on this machine is telling


def _tell(config: Config, place: Place, untold: Untold, file: str) -> None:
    records = times(place, untold)
    if REPORT not in untold.channels and untold.phase in (Phase.DONE, Phase.ROLLED_BACK):
        _publish(untold, records)
        _mark(place, untold, REPORT)
    unsent = [slug for slug in config.notifications.blocks if slug not in untold.channels]
    failed = False
    for slug in unsent:
        if send(slug, records[-1][1], file):
            _mark(place, untold, slug)
        else:
            failed = True
    if not failed or place.clock.now() - untold.at > GIVEN_UP:
        _mark(place, untold, "")


def times(place: Place, untold: Untold) -> Times:
    """The rollout's records up to what is to be told, with their times, in order."""
    return [
        (record.at, rollout)
        for record in ledger.records(place.store, untold.first, untold.number)
        if (rollout := getattr(record.event, "rollout", None)) is not None
        and rollout.id == untold.rollout
    ]


def _publish(untold: Untold, records: Times) -> None:
    """The report in the Prefect UI, and an event that others may wait for."""
    rollout = records[-1][1]
    create_markdown_artifact(
        key=f"rollout-{rollout.endpoint}",
        markdown=report(records),
        description=f"{rollout.version}: {rollout.phase}",
    )
    run = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
           "prefect.resource.role": "flow-run"}  # fmt: skip
    emit_event(
        f"arr-coc.rollout.{rollout.phase}",
        resource={"prefect.resource.id": f"arr-coc.{rollout.endpoint}"},
        payload={"version": rollout.version, "reason": rollout.reason},
        related=[run] if flow_run.id else [],
        id=_event_id(untold),
    )


def _mark(place: Place, untold: Untold, channel: str) -> None:
    def decide(state: Ledger) -> Told | None:
        known = next((u for u in state.untold if u.what == untold.what), None)
        if known is None or channel in known.channels:
            return None
        return Told(what=untold.what, channel=channel)

    ledger.append(place.store, decide, by="telling", run=str(flow_run.id or ""))
    if channel and channel != REPORT:
        logger().info("told %s: %s %s", channel, untold.rollout, untold.phase)


def _event_id(untold: Untold):
    """The same event for the same outcome: sent twice, Prefect counts it once."""
    from uuid import NAMESPACE_URL, uuid5

    return uuid5(NAMESPACE_URL, f"arr-coc:{untold.what}:{untold.number}")
