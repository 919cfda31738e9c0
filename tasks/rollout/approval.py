"""A person's yes or no before 100 %: by a form in the Prefect UI or by a command.

The run shows as paused and its page has the form, while its process goes on looking at the
canary: that has up to half of the traffic, and is taken back if it fails meanwhile. Prefect's
own suspension would leave it unwatched, is refused to a run inside another (a retraining), and
nothing would wake the run at the deadline. `python -m flows approve|reject` writes into the
ledger. Whichever comes first counts, and the other is told so.

A process that is killed leaves its form behind, where an answer would reach nobody. Where a
worker started it, the worker marks the run crashed. Otherwise the next run of the rollout
does, before it asks by a form of its own; and Prefect fails the run a minute after the
deadline at the latest, for the form has that expiry.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID, uuid4

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectException
from prefect.input import keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Crashed, Paused, Running
from pydantic import BaseModel, Field

from deployments import connect, ledger
from deployments.command import give
from policy.config import Config
from policy.errors import Refused
from policy.ledger import Ledger
from policy.rollout.record import Phase, Rollout, deadline_s, desired_weights, stayed_s
from tasks import remote
from tasks.rollout.controller import logger
from tasks.rollout.notification import approve_command
from tasks.rollout.steps import hold

Words = Annotated[str, Field(min_length=1, pattern=r"\S")]
_AWAY = (HTTPError, PrefectException)
_GRACE = timedelta(seconds=60)  # from the deadline to the form's expiry


class Decision(BaseModel, frozen=True, extra="forbid"):
    """The form. No field has a default: Prefect would take an empty answer for consent."""

    decision: Literal["approve", "reject"]
    who: Words = Field(description="your name, for the ledger")
    why: Words = Field(description="one sentence, for the ledger")


class Form:
    """The form on a run's page. Without a run, or while the server is away, there is none."""

    def __init__(self, client: SyncPrefectClient, run: UUID, file: str) -> None:
        self._client, self.run, self.file = client, run, file
        self.open, self._until = False, ledger.now()

    def show(self, rollout: Rollout) -> None:
        """Pause the run's state, not its process. Raises what Prefect raises."""
        self._until = closes_at(rollout)
        asked = Paused(pause_key=uuid4().hex, pause_expiration_time=self._until)
        self._keys = keyset_from_paused_state(asked)
        asked.state_details.run_input_keyset = {**self._keys}
        schema = json.dumps(Decision.model_json_schema())
        self._client.create_flow_run_input(self.run, self._keys["schema"], schema)
        words = json.dumps(question(rollout, self.file))
        self._client.create_flow_run_input(self.run, self._keys["description"], words)
        self._client.set_flow_run_state(self.run, asked)
        self.open = self._state_is("PAUSED")

    @property
    def expires_soon(self) -> bool:
        return self.open and ledger.now() > self._until - _GRACE / 2

    def answer(self) -> Decision | None:
        """The answer, once; None as long as nobody gave one."""
        if not self.open or not self._state_is("RUNNING"):
            return None
        self.open = False
        given = self._client.read_flow_run_input(self.run, self._keys["response"])
        return Decision.model_validate_json(given)

    def withdraw(self) -> None:
        """Let the run go on without an answer."""
        if self.open:
            self._client.set_flow_run_state(self.run, Running())
            self.open = False

    def _state_is(self, kind: str) -> bool:
        state = self._client.read_flow_run(self.run).state
        return state is not None and state.type.value == kind


@remote
def approval(config: Config, rollout: Rollout, file: str) -> Rollout:
    """Watch a canary that waits for a person, until one has spoken or it is taken back.

    Args:
        file: the configuration's, for those who answer in a terminal.
    """
    if not flow_run.id:
        return hold(config, rollout, _decided)
    with get_client(sync_client=True) as client:
        form = Form(client, UUID(str(flow_run.id)), file)
        relieve(client, rollout, ledger.read(connect(config).store), form.run)
        with _shown(form, rollout):
            return hold(config, rollout, _decided, lambda: _take(config, rollout, form))


def closes_at(rollout: Rollout) -> datetime:
    """When Prefect gives up a form that its process does not withdraw any more."""
    now = ledger.now()
    left_s = (deadline_s(rollout) or 0.0) - stayed_s(rollout, now)
    return now + timedelta(seconds=max(left_s, 0)) + _GRACE


def relieve(client: SyncPrefectClient, rollout: Rollout, state: Ledger, run: UUID) -> None:
    """Close the forms that earlier runs of this rollout left: an answer would reach nobody."""
    runs = {record.run for record, _ in state.of_rollout(rollout.id) if record.run}
    for earlier in runs - {str(run)}:
        try:
            left = client.read_flow_run(UUID(earlier)).state
            if left is not None and left.is_paused():
                gone = Crashed(message=f"its process is gone; flow run {run} asks now")
                client.set_flow_run_state(UUID(earlier), gone)
                logger().warning("flow run %s left its form behind; it is closed", earlier)
        except _AWAY as error:
            logger().warning("whether flow run %s left a form is not known: %s", earlier, error)


def question(rollout: Rollout, file: str) -> str:
    """What stands above the form."""
    share = desired_weights(rollout).get(rollout.version, 0)
    until = closes_at(rollout) - _GRACE
    return (
        f"May **{rollout.version}** take all traffic of {rollout.endpoint}? It has {share} % "
        f"now, {rollout.stable or 'nothing'} the rest. Last window: {rollout.reason}.\n\n"
        f"Without an answer until {until:%Y-%m-%d %H:%M:%S} UTC it is taken back. From a "
        f"terminal:\n\n"
        f"    {approve_command(rollout, file)}\n"
    )


def _decided(rollout: Rollout) -> bool:
    return rollout.phase is not Phase.AWAITING_APPROVAL


@contextmanager
def _shown(form: Form, rollout: Rollout) -> Iterator[None]:
    try:
        form.show(rollout)
        logger().info("waiting for approval: the form stands on this run's page")
    except _AWAY as error:
        told = approve_command(rollout, form.file)
        logger().warning("no form, answer by %s (or reject): %s", told, error)
    try:
        yield
    finally:
        try:
            late = form.answer()
            form.withdraw()
            if late is not None:
                _too_late(late, "it was decided before")
        except _AWAY as error:
            logger().warning("the form was not withdrawn: %s", error)


def _take(config: Config, rollout: Rollout, form: Form) -> None:
    """Write the form's answer, if there is one, into the ledger."""
    try:
        given = form.answer()
        if form.expires_soon:  # a pause has moved the deadline
            form.withdraw()
            form.show(_now(config, rollout))
    except _AWAY as error:
        logger().warning("the form cannot be read now: %s", error)
        return
    if given is None:
        return
    try:
        store = connect(config).store
        give(store, rollout.endpoint, given.decision, given.who, given.why)
    except Refused as error:
        _too_late(given, str(error))


def _now(config: Config, rollout: Rollout) -> Rollout:
    return ledger.read(connect(config).store).of_rollout(rollout.id)[-1][1]


def _too_late(given: Decision, why: str) -> None:
    logger().warning(
        "%s by %s (%s) came too late: %s", given.decision, given.who, given.why, why
    )
