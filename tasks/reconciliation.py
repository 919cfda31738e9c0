"""One round of reconciliation as visible steps."""

from datetime import timedelta

from deployments import ledger
from policy.config import Config
from policy.errors import EndpointError, LedgerError
from policy.ledger import Ledger
from tasks.logs import logger
from tasks.places import place_of
from tasks.reconciler import BY
from tasks.retries import once, remote
from tasks.rollout.controller import drive
from tasks.rollout.replays import replay_of
from tasks.rollout.telling import tell


@remote
def go_on(config: Config, endpoint: str, for_s: float) -> None:
    """Drive `endpoint` while something is under way there, at most `for_s` seconds."""
    place = place_of(config)
    ends = place.clock.now() + timedelta(seconds=for_s)

    def enough(state: Ledger) -> bool:
        at = state.endpoint(endpoint)
        idle = at.unfinished is None and state.waiting(endpoint) is None
        return idle or place.clock.now() >= ends

    replay = replay_of(config, place, logger().warning)
    drive(place, endpoint, enough, by=BY, say=logger().info, replay=replay)


@remote
def tell_left(config: Config, file: str) -> None:
    """Tell people what nobody has told them."""
    tell(config, place_of(config), file)


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
