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

from policy.rollout.record import Phase, Rollout, desired_weights
from tasks.logs import logger

TOLD = {
    Phase.PENDING: "rollout started",
    Phase.AWAITING_APPROVAL: "waiting for approval",
    Phase.DONE: "promoted",
    Phase.ROLLED_BACK: "rolled back",
}


def send(slug: str, rollout: Rollout, asker: str, file: str) -> bool:
    """Send one message about the rollout by one notification block; whether it was sent.

    Args:
        file: the configuration's, for those who answer in a terminal.
    """
    subject, body = message(rollout, asker, file)
    return _sent(slug, subject, body)


def message(rollout: Rollout, asker: str, file: str) -> tuple[str, str]:
    """Subject and body."""
    what = TOLD.get(rollout.phase, str(rollout.phase))
    subject = f"{rollout.endpoint}: {rollout.version} {what}"
    share = desired_weights(rollout).get(rollout.version, 0)
    lines = [
        f"{rollout.version} on {rollout.endpoint}: {what}",
        f"reason: {rollout.reason}",
        f"it has {share} %; the version before: {rollout.stable or 'none'}",
        f"asked for by {asker}",
    ]
    if rollout.phase is Phase.AWAITING_APPROVAL:
        lines.append(f"answer on the run's page, or with: {approve_command(rollout, file)}")
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
        logger().warning("%s was not told (%s): %r", slug, subject, error)
        return False
    return True
