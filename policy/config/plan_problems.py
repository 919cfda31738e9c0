"""Plans that cannot work: a rollout that could never pass, or a limit that nothing can break.

Each problem begins with the path of a setting below `rollout` and says what would happen.
"""

from collections.abc import Callable, Iterator
from math import log, log1p
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.config.rollout import Analysis, Rollout


def all_of(plan: "Rollout") -> Iterator[str]:
    """Everything that is wrong with the plan as a whole."""
    for check in _CHECKS:
        yield from check(plan)


def _weights(plan: "Rollout") -> Iterator[str]:
    weights = list(plan.weights)
    fixed = {"blue-green": [0, 100], "immediate": [100]}.get(plan.strategy, weights)
    if weights != sorted(set(weights)) or weights[-1:] != [100]:
        yield f"weights (={weights}) must rise and end at 100"
    elif weights != fixed:
        yield f"weights (={weights}) must be {fixed} for {plan.strategy}"


def _windows_have_time(plan: "Rollout") -> Iterator[str]:
    deadlines, look_s = plan.deadlines, plan.look_s
    if deadlines.step_s < plan.bake_s + look_s:
        yield (
            f"deadlines.step_s (={deadlines.step_s:g}) leaves no time for a window of bake_s "
            f"(={plan.bake_s:g}) and a look of look_s (={look_s:g}): every step would end in "
            "its deadline"
        )
    if plan.shadow.percent and deadlines.shadow_s < plan.shadow.bake_s + look_s:
        yield (
            f"deadlines.shadow_s (={deadlines.shadow_s:g}) is shorter than shadow.bake_s "
            f"(={plan.shadow.bake_s:g}) and a look: every shadow would end in its deadline"
        )
    if not plan.bake_s and plan.little_traffic != "wait":
        yield (
            "bake_s (=0) ends each window before its first request: after "
            f"limits.inconclusive_limit (={plan.limits.inconclusive_limit}) of them every "
            "version would be given up"
        )


def _waits_long_enough(plan: "Rollout") -> Iterator[str]:
    quiet_s, step_s = plan.deadlines.quiet_s, plan.deadlines.step_s
    if plan.little_traffic == "wait" and quiet_s < step_s:
        yield (
            f"deadlines.quiet_s (={quiet_s:g}) is below deadlines.step_s (={step_s:g}): "
            "little_traffic (=wait) would wait no longer than a step may last anyway"
        )


def _replays_if_it_says_so(plan: "Rollout") -> Iterator[str]:
    replays, replay_per_s = plan.little_traffic == "replay", plan.replay_per_s
    if replays and not replay_per_s:
        yield "little_traffic (=replay) needs replay_per_s above 0: nothing would be replayed"
    if replay_per_s and not replays:
        yield (
            f"replay_per_s (={replay_per_s:g}) is not used with little_traffic "
            f"(={plan.little_traffic}): nothing would be replayed; write 0"
        )


def _replays_enough(plan: "Rollout") -> Iterator[str]:
    """Where nobody else asks, the replayed questions must be enough to judge by."""
    if plan.little_traffic != "replay" or not plan.replay_per_s:
        return
    limits, watch, shadow = plan.limits, plan.watch, plan.shadow
    needed = max(limits.requests_min, plan.bake_requests)
    windows = limits.inconclusive_limit + 1
    lowest = min((weight for weight in plan.weights if weight), default=100)
    step_s = min(plan.deadlines.step_s, windows * plan.bake_s)
    yield from _too_few(
        plan, f"weight {lowest}", lowest, max(needed, limits.labels_min), step_s
    )
    if shadow.percent:
        shadow_s = min(plan.deadlines.shadow_s, windows * shadow.bake_s)
        compared = max(needed, shadow.compared_min)
        yield from _too_few(plan, "the shadow", shadow.percent, compared, shadow_s)
    yield from _too_few(plan, "the watch", 100, watch.requests_min, watch.s)


def _too_few(
    plan: "Rollout", where: str, percent: int, needed: int, time_s: float
) -> Iterator[str]:
    replayed = plan.replay_per_s * percent / 100 * time_s
    if replayed < needed:
        yield (
            f"replay_per_s (={plan.replay_per_s:g}) gives {replayed:.3g} requests at {where} "
            f"in the {time_s:g} s there are, and {needed} are needed: where nobody else asks, "
            "every version would be rolled back"
        )


def _can_be_proven(plan: "Rollout") -> Iterator[str]:
    if plan.judge.promotion != "non-inferior":
        return
    shares = [weight / 100 for weight in plan.weights if 0 < weight < 100]
    if not shares:
        yield (
            "judge.promotion (=non-inferior) needs a weight between 0 and 100 at which the "
            f"canary is compared with stable; weights are {list(plan.weights)}"
        )
    if not plan.limits.labels_min:
        yield (
            "judge.promotion (=non-inferior) needs limits.labels_min above 0: accuracy is not "
            "judged, and a version that answers wrongly would count as proven"
        )
    needed = log(plan.judge.alpha) / log1p(-plan.judge.non_inferiority_margin)
    replayed = plan.replay_per_s * sum(shares) * plan.deadlines.step_s
    if plan.little_traffic == "replay" and replayed < needed:
        yield (
            f"judge.non_inferiority_margin (={plan.judge.non_inferiority_margin:g}) takes at "
            f"least {needed:.0f} canary requests to prove, and replay_per_s "
            f"(={plan.replay_per_s:g}) gives {replayed:.0f} within the steps' deadlines: where "
            "nobody else asks, no version would be promoted"
        )


def _analyses(plan: "Rollout") -> Iterator[str]:
    names = [analysis.name for analysis in plan.analyses]
    if len(set(names)) < len(names):
        yield f"analyses must have different names (={names})"
    for number, analysis in enumerate(plan.analyses):
        for problem in _analysis(analysis, plan):
            yield f"analyses.{number}.{problem}"


def _analysis(analysis: "Analysis", plan: "Rollout") -> Iterator[str]:
    interval_s, count, step_s = analysis.interval_s, analysis.count, plan.deadlines.step_s
    every = int(plan.bake_s / interval_s + 1e-9)  # measurements in one window
    if not count and not every:
        yield (
            f"interval_s (={interval_s:g}) is above bake_s (={plan.bake_s:g}) and count is 0: "
            "the window would end before the first measurement"
        )
    elif not count and not analysis.dry_run and _tolerated(analysis) >= every:
        yield (
            f"failure_limit (={analysis.failure_limit}), inconclusive_limit "
            f"(={analysis.inconclusive_limit}) and consecutive_error_limit "
            f"(={analysis.consecutive_error_limit}) together are not below the {every} "
            "measurement(s) of a window: the version would get on without a successful one"
        )
    if count and not analysis.dry_run and count * interval_s + plan.look_s > step_s:
        yield (
            f"count (={count}) measurements at interval_s (={interval_s:g}) take "
            f"{count * interval_s:g} s and a look, and deadlines.step_s is {step_s:g}: every "
            "step would end in its deadline"
        )


def _tolerated(analysis: "Analysis") -> int:
    errors = analysis.consecutive_error_limit
    return analysis.failure_limit + analysis.inconclusive_limit + errors


_CHECKS: tuple[Callable[["Rollout"], Iterator[str]], ...] = (
    _weights,
    _windows_have_time,
    _waits_long_enough,
    _replays_if_it_says_so,
    _replays_enough,
    _can_be_proven,
    _analyses,
)
