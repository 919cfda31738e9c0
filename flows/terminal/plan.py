"""What a rollout by this configuration would do, and how long it would take."""

from collections.abc import Iterator

from deployments import Place, connect
from deployments.console import complain, say
from policy.config import Config
from policy.counts import between
from policy.errors import EndpointSilent
from policy.rollout.plans import Plan, plan_for, steps_s
from policy.words import duration, per_time, percent, points

COUNTED_S = 5.0


def show(config: Config) -> int:
    """Print the plan of each endpoint on the way. Starts nothing and changes nothing."""
    place = connect(config)
    complain(f"counting today's requests for {COUNTED_S:.0f} s …")
    for name in config.path:
        plan = plan_for(config, name)
        say(f"{name} ({config.endpoint(name).role}): {plan.strategy}")
        for line in (*lines(plan), timing(plan, requests_per_s(place, name))):
            say(f"  {line}")
    return 0


def lines(plan: Plan) -> Iterator[str]:
    """The states of a rollout in their order, with what each asks for and its deadline."""
    deadlines, limits, judge, watch = plan.deadlines, plan.limits, plan.judge, plan.watch
    yield f"start     its server within {duration(deadlines.deploying_s)}"
    if plan.smoke_requests:
        within = duration(deadlines.smoke_s)
        yield f"smoke     {plan.smoke_requests} requests by name within {within}"
    if plan.shadow.percent:
        shadow = f"{plan.shadow.percent} % of the requests copied"
        yield f"shadow    {shadow} for {duration(plan.shadow.bake_s)}, nobody gets the answers"
    steps, needed = " -> ".join(f"{w} %" for w in plan.weights), _needed(plan)
    yield (
        f"steps     {steps}, each at least {duration(plan.bake_s)} and {needed} requests, "
        f"at most {duration(deadlines.step_s)} (without traffic {duration(deadlines.quiet_s)})"
    )
    slow, right = duration(limits.latency_p95_s_max), percent(limits.accuracy_min)
    yield (
        f"limits    errors at most {percent(limits.error_rate_max)}, p95 at most {slow}, "
        f"accuracy at least {right}"
    )
    margins = {
        "errors": judge.error_rate_margin,
        "slow answers": judge.slow_margin,
        "wrong answers": judge.accuracy_margin,
    }
    told = [f"{what} +{points(margin)}" for what, margin in margins.items() if margin < 1]
    yield f"compared  with stable: {', '.join(told) or 'nothing'}"
    for analysis in plan.analyses:
        decides = "is shown only" if analysis.dry_run else "decides"
        condition = analysis.success_condition or f"not ({analysis.failure_condition})"
        yield f"analysis  {analysis.name}: {condition}, {decides}"
    if plan.approval:
        yield f"approval  a person's, before 100 %, within {duration(deadlines.approval_s)}"
    if watch.s:
        yield f"watch     {duration(watch.s)} at 100 %, the version before stays as a backup"


def timing(plan: Plan, traffic_per_s: float | None) -> str:
    """How long all steps take at today's traffic; `traffic_per_s` None: it is not known."""
    known, replayed = traffic_per_s or 0.0, plan.replays_per_s
    sources = "not known" if traffic_per_s is None else per_time(known)
    traffic = f"today's traffic {sources}"
    traffic += f", replayed {per_time(replayed)}" if replayed else ""
    at_most = f"at most {duration(longest_s(plan))} in all"
    if known + replayed <= 0:
        chosen = {"ask": "asks a person", "wait": "waits for traffic", "replay": "waits"}
        return f"time      unknown, {at_most} ({traffic}): it {chosen[plan.little_traffic]}"
    steps = duration(steps_s(plan, known + replayed))
    return f"time      about {steps} of steps, {at_most} ({traffic})"


def longest_s(plan: Plan) -> float:
    """Seconds until a rollout is decided, if each of its states lasts until its deadline."""
    deadlines = plan.deadlines
    optional = deadlines.shadow_s * bool(plan.shadow.percent)
    optional += deadlines.approval_s * plan.approval
    optional += (plan.watch.s + max(deadlines.watch_s, deadlines.quiet_s)) * bool(plan.watch.s)
    steps = len(plan.weights) * max(deadlines.step_s, deadlines.quiet_s)
    return deadlines.deploying_s + deadlines.smoke_s + steps + deadlines.promoting_s + optional


def requests_per_s(place: Place, endpoint: str) -> float | None:
    """Requests a second that the endpoint gets now; None if that cannot be read."""
    try:
        versions = [*place.endpoint(endpoint).observe().weights]
        before = place.telemetry.read(endpoint, versions)
        place.clock.sleep(COUNTED_S)
        after = place.telemetry.read(endpoint, versions)
    except EndpointSilent:
        return None
    elapsed_s = (after.complete_until - before.complete_until).total_seconds()
    counted = [
        between(before.samples[v], after.samples[v])
        for v in versions
        if v in before.samples and v in after.samples
    ]
    if elapsed_s <= 0 or not all(one is not None and not one.restarted for one in counted):
        return None
    return sum(one.counts.requests for one in counted if one is not None) / elapsed_s


def _needed(plan: Plan) -> int:
    return max(plan.limits.requests_min, plan.bake_requests)
