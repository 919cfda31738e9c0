"""Telling people how a rollout goes, through Prefect's notification blocks.

A block (Slack, e-mail, a webhook …) is made in the Prefect UI and named in the configuration,
so that its secret stands nowhere else. A message that cannot be sent is logged; it changes
nothing of the rollout.
"""

import asyncio
import shlex
from collections.abc import Coroutine

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from policy.config import Config
from policy.rollout.record import Phase, Rollout, desired_weights
from tasks import once
from tasks.rollout.controller import logger

TOLD = {
    Phase.PENDING: "rollout started",
    Phase.AWAITING_APPROVAL: "waiting for approval",
    Phase.DONE: "promoted",
    Phase.ROLLED_BACK: "taken back",
}


@once
def notify(config: Config, rollout: Rollout, file: str) -> int:
    """Send one message about the rollout by every configured block; how many were sent.

    Args:
        file: the configuration's, for those who answer in a terminal.
    """
    subject, body = message(rollout, file)
    return sum(_sent(slug, subject, body) for slug in config.notifications.blocks)


def message(rollout: Rollout, file: str) -> tuple[str, str]:
    """Subject and body."""
    what = TOLD.get(rollout.phase, str(rollout.phase))
    subject = f"{rollout.endpoint}: {rollout.version} {what}"
    share = desired_weights(rollout).get(rollout.version, 0)
    lines = [
        f"{rollout.version} on {rollout.endpoint}: {what}",
        f"reason: {rollout.reason}",
        f"it has {share} %; before it: {rollout.stable or 'nothing'}; by {rollout.by}",
    ]
    if rollout.phase is Phase.AWAITING_APPROVAL:
        lines.append(f"answer on the page of the run, or: {approve_command(rollout, file)}")
    return subject, "\n".join(lines)


def approve_command(rollout: Rollout, file: str) -> str:
    """What approves in a terminal, whichever configuration the rollout was started with."""
    endpoint = f"--endpoint {rollout.endpoint}"
    return f'.venv/bin/python -m flows approve {endpoint} --why "…" {shlex.quote(file)}'


def _sent(slug: str, subject: str, body: str) -> bool:
    try:
        block = Block.load(slug)
        if not isinstance(block, NotificationBlock):
            raise TypeError(f"it is a {type(block).__name__}, not a notification block")
        sent = block.notify(body, subject)
        if isinstance(sent, Coroutine):  # a kind without a form for callers that are not async
            asyncio.run(sent)
    except Exception as error:  # every kind of block fails in its own way; none may matter
        logger().warning("not told by %s: %r: %s", slug, error, subject)
        return False
    return True
