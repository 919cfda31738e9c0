"""A rollout under whatever may happen: random looks, commands, crashes, lost and repeated
calls, a second controller on an old record, metrics that are late, dip or begin again, and
hours in which nobody looks. The ledger is the real one."""

from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from policy.counts import Compared, Sample
from policy.errors import LedgerError, Refused
from policy.evidence.limits import Fault
from policy.ledger import Ledger, extend, key, next_record
from policy.records import RolloutChanged, decode
from policy.rollout.commands import abort, approve, pause, promote_now, reject, resume
from policy.rollout.machine import advance
from policy.rollout.observed import Missed, told, without
from policy.rollout.plans import at_once
from policy.rollout.record import (
    Phase,
    Rollout,
    Seen,
    Smoke,
    desired_versions,
    desired_weights,
    finished,
    start,
)
from policy.rollout.transitions import replaced
from tests.policy.worlds import ACCURATE, NOW, make_plan, plus, sample

LITTLE = {"bake_requests": 150, "replay_per_s": 0}
PLANS = [
    make_plan(),
    make_plan(approval=True, judge__promotion="non-inferior", deadlines__step_s=200),
    make_plan(
        strategy="blue-green", weights=(0, 100), shadow__percent=20, little_traffic="wait"
    ),
    make_plan(strategy="immediate", weights=(100,), watch__s=0, approval=True),
    make_plan(weights=(0, 1, 99, 100), analyses=(ACCURATE.model_dump(),)),
    make_plan(little_traffic="wait", analyses=(ACCURATE.model_dump(),), **LITTLE),
    make_plan(little_traffic="ask", approval=True, **LITTLE),
]
TRAFFIC = st.sampled_from(
    [
        (0, 0.0, 0.0),
        (3, 0.0, 0.0),
        (50, 0.0, 0.0),
        (50, 0.0, 0.05),
        (50, 0.1, 0.1),
        (200, 0.8, 0.0),
        (200, 0.0, 0.9),
    ]
)
COMMANDS = st.sampled_from([abort, promote_now, pause, resume, approve, reject])


class RolloutMachine(RuleBasedStateMachine):
    """Two controllers share a ledger; the endpoint may be behind, ahead or tampered with."""

    @initialize(
        plan=st.sampled_from(PLANS),
        stable=st.sampled_from(["v1", "v1", "v1", None]),
        looks=st.integers(0, 30),
        late_s=st.sampled_from([0, 0, 6, 20]),
        rollback=st.sampled_from([False, False, False, True]),
    )
    def begin(self, plan, stable, looks, late_s, rollback):
        """Somewhere on the way, so that every state has its share of bad luck."""
        self.now, self.ledger, self.old, self.records = NOW, Ledger(), [], []
        self.ready, self.broken, self.away, self.seen_ready = False, False, False, False
        self.silent, self.dipped, self.late_s, self.lives = False, False, late_s, 1
        self.canary, self.base = Sample(epoch="1"), Sample(epoch="1")
        self.counted = [(NOW, self.canary, self.base)]
        self.weights = {} if stable is None else {stable: 100}
        self.servers = set(self.weights)
        plan = at_once(plan) if rollback else plan
        args = ("r1", "production", "v2", stable, plan, "a test", NOW)
        self.write(start(*args, rollback=rollback), Ledger())
        self.all_is_well_for_a_while(looks)

    @property
    def rollout(self) -> Rollout:
        return self.ledger.endpoint("production").rollout

    def write(self, rollout, read):
        """Append as a controller does that has read the ledger `read`."""
        record = next_record(read, RolloutChanged(rollout=rollout), at=self.now, by="c", run="")
        self.ledger = extend(self.ledger, key(record.number), record.encode())
        self.old.append(read)
        self.records.append(record)

    def seen(self, **changes):
        """What a look shows. Readiness is of the server: it must run to be ready."""
        rollout = self.rollout
        ready = self.ready and "v2" in self.servers
        smoke = Smoke(requests=5, wrong=0) if rollout.phase is Phase.SMOKE and ready else None
        until, canary, base = self.complete()
        found = Seen(
            at=self.now,
            counted_until=until if self.late_s else None,
            ready=ready,
            failure="its server gave up" if self.broken else "",
            smoke=smoke,
            weights=None if self.silent else dict(self.weights),
            canary=None if self.away else canary,
            stable=None if self.away or rollout.stable is None else base,
            shadow=Compared(compared=50, differed=2),
        )
        return found.model_copy(update=changes)

    def complete(self):
        """The newest counters that are complete, and until when they are."""
        known = [c for c in self.counted if c[0] <= self.now - timedelta(seconds=self.late_s)]
        until, canary, base = known[-1] if known else self.counted[0]
        if self.dipped:
            canary, base = Sample(epoch=canary.epoch), Sample(epoch=base.epoch)
        return until, canary, base

    def count(self, canary, base):
        self.canary, self.base = canary, base
        self.counted = [*self.counted, (self.now, canary, base)][-40:]

    def step(self, unwatched_s=0.0, **changes):
        missed = Missed() if finished(self.rollout) else Missed(unwatched_s=unwatched_s)
        before = without(self.rollout, missed)
        seen = self.seen(**changes)
        self.seen_ready = seen.ready or self.silent
        after = advance(before, seen)
        assert (after is before) == (after == before)
        after = told(after, missed)
        if after is not before or missed:
            self.write(after, self.ledger)
        self.nothing_was_judged_that_is_not_complete(before, after, seen)

    def nothing_was_judged_that_is_not_complete(self, before, after, seen):
        if after.last is not before.last:
            assert after.last.at == seen.until
        if before.window is None and after.window is not None:
            assert seen.until == after.window.start.at >= after.entered_at

    @rule(traffic=TRAFFIC, look_s=st.sampled_from([0.5, 2, 6, 11]))
    def time_passes_and_somebody_looks(self, traffic, look_s):
        self.now += timedelta(seconds=look_s)
        requests, errors, wrong = traffic
        canary = plus(self.canary, answered(requests, errors, wrong))
        self.count(canary, plus(self.base, answered(50, 0.0, 0.05)))
        self.step()

    @rule(gap_s=st.sampled_from([90, 4000]))
    def nobody_looks_for_a_while(self, gap_s):
        """Whatever was on its way before is neither overdue nor taken back for that."""
        before = self.rollout
        self.now += timedelta(seconds=gap_s)
        good = answered(gap_s, 0.0, 0.05)
        self.count(plus(self.canary, good), plus(self.base, good))
        self.step(unwatched_s=gap_s)
        assert before.fault is not None or self.rollout.fault is not Fault.DEADLINE

    @rule()
    def the_endpoint_obeys(self):
        """The controller's hands: servers up, weights if it can, superfluous ones down."""
        self.servers |= set(desired_versions(self.rollout))
        self.weights = desired_weights(self.rollout)
        self.servers &= set(desired_versions(self.rollout)) | set(self.weights)

    @rule(looks=st.integers(1, 8))
    def all_is_well_for_a_while(self, looks):
        self.ready, self.away, self.silent, self.dipped = True, False, False, False
        for _ in range(looks):
            self.the_endpoint_obeys()
            self.a_good_look()

    @rule()
    def a_look_is_repeated(self):
        self.step()
        self.step()

    @rule()
    def the_version_gets_ready(self):
        self.ready = True

    @rule()
    def the_version_goes_down(self):
        self.ready = False

    @rule()
    def the_version_gives_up(self):
        self.broken = True

    @rule()
    def the_metrics_come_and_go(self):
        self.away = not self.away

    @rule()
    def the_endpoint_falls_silent_or_answers_again(self):
        self.silent = not self.silent

    @rule(who=st.sampled_from(["canary", "both"]))
    def the_counters_begin_again(self, who):
        self.lives += 1
        fresh = Sample(epoch=str(self.lives))
        self.count(fresh, fresh if who == "both" else self.base)

    @rule()
    def the_counters_dip_or_catch_up(self):
        self.dipped = not self.dipped

    @rule(late_s=st.sampled_from([0, 6, 20, 120]))
    def the_metrics_come_later_or_sooner(self, late_s):
        self.late_s = late_s

    @rule(share=st.integers(1, 99))
    @precondition(lambda self: self.rollout.stable and "v2" in self.servers)
    def somebody_sets_other_weights(self, share):
        self.weights = {"v1": 100 - share, "v2": share}

    @invariant()
    def whoever_is_taken_back_has_a_kind_of_reason(self):
        taken_back = self.rollout.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
        assert taken_back == (self.rollout.fault is not None)

    @rule(wrong=st.integers(1, 5))
    def smoke_goes_wrong(self, wrong):
        if self.rollout.phase is Phase.SMOKE:
            self.step(smoke=Smoke(requests=5, wrong=wrong, detail="status 500"))
            assert self.rollout.phase is Phase.ROLLING_BACK

    @rule(command=COMMANDS)
    def a_person_says_something(self, command):
        before = self.rollout
        try:
            after = command(before, "ann", "why", self.now)
        except Refused:
            return
        if after is not before:
            self.write(after, self.ledger)

    @rule(back=st.integers(0, 5))
    @precondition(lambda self: self.old)
    def a_second_controller_writes_on_an_old_record(self, back):
        """It loses the race for the number: the chain refuses what it has decided."""
        read, head = self.old[-1 - back % len(self.old)], self.ledger.head
        stale = replaced(self.rollout, phase=Phase.DONE)
        record = next_record(read, RolloutChanged(rollout=stale), at=self.now, by="2", run="")
        try:
            extend(self.ledger, key(record.number), record.encode())
        except LedgerError:
            assert self.ledger.head == head
        else:
            raise AssertionError("a stale write was accepted")

    @rule()
    def the_controller_dies_and_reads_the_ledger_again(self):
        last = self.records[-1]
        assert decode(key(last.number), last.encode()).event.rollout == self.rollout

    @invariant()
    def weights_add_up_to_100(self):
        weights = desired_weights(self.rollout)
        assert sum(weights.values()) == (100 if weights else 0)
        assert weights or self.rollout.stable is None
        assert all(percent > 0 for percent in weights.values())

    @invariant()
    def no_traffic_on_what_does_not_run(self):
        assert set(desired_weights(self.rollout)) <= set(desired_versions(self.rollout))

    @invariant()
    def no_traffic_on_what_was_not_ready_at_the_last_look(self):
        under_way = not finished(self.rollout) and self.rollout.stable is not None
        if under_way and not self.seen_ready:
            assert desired_weights(self.rollout) == {"v1": 100}

    @invariant()
    def no_traffic_before_the_version_was_ready_and_answered(self):
        path = [record.event.rollout.phase for record in self.records]
        if "v2" in desired_weights(self.rollout):
            assert Phase.SMOKE in path

    @invariant()
    def stable_is_up_until_the_end(self):
        if self.rollout.stable is not None and self.rollout.phase is not Phase.DONE:
            assert "v1" in desired_versions(self.rollout)

    @invariant()
    def a_finished_rollout_never_changes(self):
        ended = [r.event.rollout for r in self.records if finished(r.event.rollout)]
        assert len(ended) <= 1
        if ended:
            assert ended[0] == self.rollout

    def teardown(self):
        """From wherever the run has got to, a working endpoint brings it to an end."""
        if not self.records:
            return
        self.late_s, self.dipped = 0, False
        for _ in range(400):
            if finished(self.rollout):
                return
            self.the_endpoint_obeys()
            self.ready, self.away, self.broken, self.silent = True, False, False, False
            self.a_good_look()
        raise AssertionError(f"stuck in {self.rollout.phase}: {self.rollout.reason}")

    def a_good_look(self):
        self.now += timedelta(seconds=4)
        good = answered(60, 0.0, 0.05)
        self.count(plus(self.canary, good), plus(self.base, good))
        self.step()


def answered(requests: int, errors: float, wrong: float) -> Sample:
    failed = round(requests * errors)
    labels = requests - failed
    return sample(requests, failed, labels=labels, wrong=round(labels * wrong))


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
