"""A person's yes or no before 100 %: by a form in the Prefect UI or by a command.

The run shows as paused and its page has the form, while the canary is watched as before: it
has up to half of the traffic, and is rolled back if it fails meanwhile. Prefect's own
suspension would leave it unwatched, is refused to a run inside another (a retraining), and
nothing would wake the run at the deadline. `python -m flows approve|reject` writes into the
ledger. Whichever comes first counts, and the other is told so.

The form belongs to the run that asked for the rollout, and stands on its page alone. A run
that is killed leaves its form behind; the reconciler marks the run crashed, the same run
started again asks again, and Prefect gives the form up a minute after the deadline anyway.
"""

import json
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID, uuid4

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectException
from prefect.input import keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Paused, Running
from pydantic import BaseModel, Field

from deployments import Place, command
from policy.errors import Refused
from policy.ledger import Ledger
from policy.rollout.record import Phase, Rollout, deadline_s, desired_weights, stayed_s
from policy.rollout.requests import Request
from policy.words import plain
from tasks.logs import logger
from tasks.rollout.notification import approve_command

Words = Annotated[str, Field(min_length=1, pattern=r"\S")]
_AWAY = (HTTPError, PrefectException)
_GRACE = timedelta(seconds=60)  # from the deadline to the form's expiry


class Decision(BaseModel, frozen=True, extra="forbid"):
    """The form. No field has a default: Prefect would take an empty answer for consent."""

    decision: Literal["approve", "reject"]
    who: Words = Field(description="your name, for the ledger")
    why: Words = Field(description="one sentence, for the ledger")


class ApprovalForm:
    """The form on this run's page: there while its rollout waits for approval."""

    def __init__(self, place: Place, request: Request, file: str) -> None:
        self._place, self._request, self._file = place, request, file
        self._run = UUID(str(flow_run.id))
        self._keys: dict[str, str] = {}
        self._asked, self._until, self._failed = "", place.clock.now(), False

    @property
    def open(self) -> bool:
        return bool(self._keys)

    def update(self, state: Ledger) -> None:
        """Show it, take its answer, or withdraw it, as the ledger wants."""
        rollout = state.endpoint(self._request.endpoint).unfinished
        mine = rollout is not None and _is_of(state, rollout, self._request.id)
        waits = mine and rollout is not None and rollout.phase is Phase.AWAITING_APPROVAL
        try:
            with get_client(sync_client=True) as client:
                self._take(client)
                if not waits or rollout is None:
                    self._withdraw(client)
                elif not self.open or self._expires_soon():
                    self._withdraw(client)
                    self._show(client, rollout)
            self._failed = False
        except _AWAY as error:
            if not self._failed and waits and rollout is not None:
                told = approve_command(rollout, self._file)
                logger().warning("no form now, answer by %s (or reject): %s", told, error)
            self._failed = True

    def withdraw(self) -> None:
        """At the end: the run goes on without an answer; a late one is told so."""
        try:
            with get_client(sync_client=True) as client:
                self._take(client)
                self._withdraw(client)
        except _AWAY as error:
            logger().warning("the form was not withdrawn: %s", error)

    def _show(self, client: SyncPrefectClient, rollout: Rollout) -> None:
        """Pause the run's state, not its process."""
        self._until = closes_at(rollout, self._place.clock.now())
        asked = Paused(pause_key=uuid4().hex, pause_expiration_time=self._until)
        keys = keyset_from_paused_state(asked)
        asked.state_details.run_input_keyset = {**keys}
        schema = json.dumps(Decision.model_json_schema())
        client.create_flow_run_input(self._run, keys["schema"], schema)
        words = json.dumps(question(rollout, self._until - _GRACE, self._file))
        client.create_flow_run_input(self._run, keys["description"], words)
        client.set_flow_run_state(self._run, asked)
        if self._state_is(client, "PAUSED"):
            self._keys = {**keys}
            logger().info(
                "waiting for approval until %s UTC: the form is on this run's page; or: %s",
                f"{self._until - _GRACE:%Y-%m-%d %H:%M:%S}",
                approve_command(rollout, self._file),
            )

    def _take(self, client: SyncPrefectClient) -> None:
        """Write the form's answer into the ledger, once there is one.

        The form counts as answered only when the ledger has the answer: what fails on the way
        is tried again, under the same id.
        """
        if not self.open or not self._state_is(client, "RUNNING"):
            return
        given = Decision.model_validate_json(
            client.read_flow_run_input(self._run, self._keys["response"])
        )
        asked = Request(
            id=f"{self._run}:form:{self._keys['response']}", kind=given.decision,
            endpoint=self._request.endpoint, by=given.who, why=given.why,
        )  # fmt: skip
        try:
            command.make(self._place, asked, run=str(self._run))
        except Refused as error:
            logger().warning(
                "%s by %s (%s) came too late: %s", given.decision, given.who, given.why, error
            )
        self._keys = {}

    def _withdraw(self, client: SyncPrefectClient) -> None:
        if self.open:
            client.set_flow_run_state(self._run, Running())
            self._keys = {}

    def _expires_soon(self) -> bool:
        """A pause has moved the deadline: the form would expire before it."""
        return self._place.clock.now() > self._until - _GRACE / 2

    def _state_is(self, client: SyncPrefectClient, kind: str) -> bool:
        state = client.read_flow_run(self._run).state
        return state is not None and state.type.value == kind


def closes_at(rollout: Rollout, now: datetime) -> datetime:
    """When Prefect gives up a form that its process does not withdraw any more."""
    left_s = (deadline_s(rollout) or 0.0) - stayed_s(rollout, now)
    return now + timedelta(seconds=max(left_s, 0)) + _GRACE


def question(rollout: Rollout, until: datetime, file: str) -> str:
    """What stands above the form."""
    share = desired_weights(rollout).get(rollout.version, 0)
    last = plain(rollout.reason)
    return (
        f"May **{rollout.version}** take all traffic of {rollout.endpoint}? It has {share} % "
        f"now; {rollout.stable or 'nothing'} has the rest. Last window: {last}.\n\n"
        f"Without an answer by {until:%Y-%m-%d %H:%M:%S} UTC it is rolled back. To answer "
        f"from a terminal:\n\n"
        f"    {approve_command(rollout, file)}\n"
    )


def _is_of(state: Ledger, rollout: Rollout, request: str) -> bool:
    answer = state.requests.get(request)
    return answer is not None and answer.rollout == rollout.id
