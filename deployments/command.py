"""Requests to an endpoint, as records in the ledger.

They work from any machine that reaches the store: whoever drives the endpoint finds them at
the next look. Of two that contradict each other the first one counts.
"""

from deployments import Place, ledger
from policy.errors import EndpointSilent, Refused
from policy.ledger import Ledger
from policy.records import Decided, Event, Requested, RolloutChanged
from policy.rollout.record import shown
from policy.rollout.requests import Answer, Effect, Request, ask, start_waiting


def make(place: Place, request: Request, run: str = "") -> Answer:
    """Write `request` into the ledger, if it is not there already, and say how it stands.

    Raises:
        Unsupported: if there is no such endpoint.
        NotFound: if there is no such version.
        Refused: if it can never come true, its id was used for something else, or the ledger
            does not know what serves there.
    """
    place.endpoint(request.endpoint)
    require_capabilities(place, request)

    def decide(state: Ledger) -> Requested | None:
        if request.id in state.requests:
            _require_same(state.requests[request.id], request)
            return None
        at = state.endpoint(request.endpoint)
        if request.kind == "rollout":
            state.version(request.version)
            if at.rollout is None:
                _require_nothing_serves(place, request)
        id = f"{request.endpoint}-{state.number + 1}"
        effect = ask(request, at.unfinished, at.promoted, place.clock.now(), id)
        return Requested(answer=effect.answer, rollout=effect.rollout)

    state = ledger.append(place.store, decide, by=request.by, run=run, now=place.clock.now)
    return state.requests[request.id]


def start_next(state: Ledger, place: Place, endpoint: str) -> Event | None:
    """The record that begins what has waited longest for a free endpoint, if anything has."""
    at, waiting = state.endpoint(endpoint), state.waiting(endpoint)
    if at.unfinished is not None or waiting is None:
        return None
    id = f"{endpoint}-{state.number + 1}"
    effect = start_waiting(waiting.request, at.promoted, place.clock.now(), id)
    return _begun(effect, waiting)


def require_capabilities(place: Place, request: Request) -> None:
    """Refuse a plan that needs what the endpoint cannot do, before anything starts."""
    endpoint, plan = place.endpoint(request.endpoint), request.plan
    if request.kind != "rollout" or plan is None:
        return
    asked, copied = plan.smoke_requests, plan.shadow.percent
    needs = {
        "pin": f"rollout.smoke_requests (={asked})" if asked else "",
        "mirror": f"rollout.shadow.percent (={copied})" if copied else "",
    }
    for capability, setting in needs.items():
        if setting and capability not in endpoint.can:
            raise Refused(
                f"{setting} needs an endpoint that can {capability}; {request.endpoint} can "
                f"{', '.join(sorted(endpoint.can)) or 'do none of the optional things'}",
                expected=f"0, or another endpoint than {request.endpoint}",
                holds="nothing was started and the weights are unchanged",
                do=f"set {setting.split()[0]} to 0 in the configuration",
            )


def _require_nothing_serves(place: Place, request: Request) -> None:
    """A first rollout may take the traffic from nobody; then the ledger is not what it was."""
    endpoint = place.endpoint(request.endpoint)
    try:
        weights = endpoint.observe().weights
    except EndpointSilent:
        return  # nothing is known against it
    if weights:
        raise Refused(
            f"{request.endpoint} serves {shown(weights)}, and the ledger knows of no rollout "
            "to it",
            expected="the ledger in which that was promoted",
            holds="nothing was written and what serves goes on",
            do=f"restore {place.store.root}/ledger from a copy of the store; make status "
            "tells what is missing",
        )


def _begun(effect: Effect, waiting: Answer) -> Event:
    if effect.rollout is not None:
        return RolloutChanged(rollout=effect.rollout)
    return Decided(answer=effect.answer.model_copy(update={"number": waiting.number}))


def _require_same(known: Answer, request: Request) -> None:
    if not known.request.same_as(request):
        asked = known.request
        raise Refused(
            f"the request {request.id} was used for {asked.kind} {asked.version} on "
            f"{asked.endpoint}",
            expected=f"a new id for {request.kind} {request.version} on {request.endpoint}",
            holds="nothing was written",
            do="make the request with an id of its own",
        )
