"""One round of reconciliation as visible steps."""

from collections.abc import Collection, Mapping
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run

from deployments import ledger
from policy.config import Config
from policy.errors import EndpointError, LedgerError
from policy.ledger import Ledger
from tasks.logs import logger
from tasks.places import place_of
from tasks.retries import once, remote
from tasks.rollout.channels import channels_of
from tasks.rollout.controller import RECONCILER, drive
from tasks.rollout.replays import replay_of
from tasks.rollout.telling import tell
from tasks.runs import stop_cancelled


@remote
def go_on(config: Config, endpoint: str, for_s: float) -> None:
    """Drive `endpoint` while something is under way there, at most `for_s` seconds."""
    place = place_of(config)
    ends = place.clock.monotonic() + for_s

    def enough(state: Ledger) -> bool:
        at = state.endpoint(endpoint)
        idle = at.unfinished is None and state.waiting(endpoint) is None
        return idle or place.clock.monotonic() >= ends

    replay = replay_of(config, place, logger().warning)
    drive(place, endpoint, enough, by=RECONCILER, say=logger().info, replay=replay)


@remote
def stop_what_was_cancelled(config: Config) -> None:
    """Abort what was asked for by a flow run that was cancelled."""
    place = place_of(config)
    for line in stop_cancelled(place, ledger.read(place.store), _states):
        logger().info(line)


@remote
def tell_left(config: Config, file: str) -> None:
    """Tell people what nobody has told them."""
    tell(place_of(config), channels_of(config, file), run=str(flow_run.id or ""))


@once
def require_well(config: Config) -> None:
    """Raises EndpointError with every part that is not well; LedgerError."""
    place = place_of(config)
    problems = [f"{p.name}: {p.problem}" for p in place.health().parts if p.problem]
    try:
        ledger.audit(place.store)
    except LedgerError as error:
        problems.append(str(error))
    if problems:
        raise EndpointError("; ".join(problems), expected="every part of the place to be well")


def _states(runs: Collection[str]) -> Mapping[str, str]:
    """The type of the state of each flow run, by its id; those that Prefect does not know are
    left out.
    """
    ids = FlowRunFilterId(any_=[UUID(run) for run in runs])
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ids))
    return {str(run.id): run.state.type.value for run in found if run.state is not None}
