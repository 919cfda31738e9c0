"""By what people are told of a rollout: reports and events of Prefect, notification blocks."""

from collections.abc import Mapping
from functools import partial
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from policy.config import Config
from policy.ledger import Untold
from policy.rollout.record import Phase
from tasks.logs import logger
from tasks.reports.rollout import report
from tasks.rollout.notification import send
from tasks.rollout.telling import Channel, Times

REPORT = "report"


def channels_of(config: Config, file: str) -> Mapping[str, Channel]:
    """The report and every configured notification block, by their names.

    Args:
        file: the configuration's, for those who answer in a terminal.
    """
    blocks = {slug: partial(_notify, slug, file) for slug in config.notifications.blocks}
    return {REPORT: publish, **blocks}


def publish(untold: Untold, records: Times) -> bool:
    """The report of an ended rollout in the Prefect UI, and an event for whoever waits."""
    if untold.phase not in (Phase.DONE, Phase.ROLLED_BACK):
        return True
    rollout = records[-1][1]
    create_markdown_artifact(
        key=f"rollout-{rollout.endpoint}",
        markdown=report(records),
        description=f"{rollout.version}: {rollout.phase}",
    )
    run = {
        "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
        "prefect.resource.role": "flow-run",
    }
    emit_event(
        f"arr-coc.rollout.{rollout.phase}",
        resource={"prefect.resource.id": f"arr-coc.{rollout.endpoint}"},
        payload={"version": rollout.version, "reason": rollout.reason},
        related=[run] if flow_run.id else [],
        id=event_id(untold),
    )
    return True


def event_id(untold: Untold) -> UUID:
    """The same for the same outcome: sent twice, Prefect counts it once."""
    return uuid5(NAMESPACE_URL, f"arr-coc:{untold.what}:{untold.number}")


def _notify(slug: str, file: str, untold: Untold, records: Times) -> bool:
    sent = send(slug, records[-1][1], records[0][1].by, file)
    if sent:
        logger().info("told %s: %s", slug, untold.what)
    return sent
