"""A rollout under whatever may happen: random looks, commands, crashes, lost and repeated
calls, a second controller on an old record. The ledger is the real one."""

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

from policy.errors import LedgerError, Refused
from policy.ledger import Ledger, RolloutChanged, extend, key, next_record
from policy.rollout.machine import (
    Compared,
    Phase,
    Rollout,
    Sample,
    Seen,
    Smoke,
    abort,
    advance,
    approve,
    desired_versions,
    desired_weights,
    finished,
    pause,
    promote_now,
    reject,
    resume,
    start,
)
from policy.rollout.transitions import but
from tests.policy.worlds import ACCURATE, NOW, make_plan, sample

PLANS = [
    make_plan(),
    make_plan(approval=True, judge__promotion="non-inferior", deadlines__step_s=200),
    make_plan(strategy="blue-green", weights=(0, 100), shadow__percent=20),
    make_plan(strategy="immediate", weights=(100,), watch__s=0, approval=True),
    make_plan(weights=(0, 1, 99, 100), analyses=(ACCURATE.model_dump(),)),
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
    )
    def begin(self, plan, stable, looks):
        """Somewhere on the way, so that every state has its share of bad luck."""
        self.now, self.ledger, self.old = NOW, Ledger(), []
        self.ready, self.broken, self.away, self.seen_ready = False, False, False, False
        self.silent = False
        self.canary, self.base = Sample(), Sample()
        self.weights = {} if stable is None else {stable: 100}
        self.servers = set(self.weights)
        self.write(start("r1", "production", "v2", stable, plan, "a test", NOW), Ledger())
        self.all_is_well_for_a_while(looks)

    @property
    def rollout(self) -> Rollout:
        return self.ledger.endpoint("production").rollout

    def write(self, rollout, read):
        """Append as a controller does that has read the ledger `read`."""
        record = next_record(read, RolloutChanged(rollout=rollout), at=self.now, by="c", run="")
        self.ledger = extend(self.ledger, key(record.number), record.encode())
        self.old.append(read)

    def seen(self, **changes):
        """What a look shows. Readiness is of the server: it must run to be ready."""
        rollout = self.rollout
        ready = self.ready and "v2" in self.servers
        smoke = Smoke(requests=5, wrong=0) if rollout.phase is Phase.SMOKE and ready else None
        found = Seen(
            at=self.now,
            ready=ready,
            failure="its server gave up" if self.broken else "",
            smoke=smoke,
            weights=None if self.silent else dict(self.weights),
            canary=None if self.away else self.canary,
            stable=None if self.away or rollout.stable is None else self.base,
            shadow=Compared(compared=50, differed=2),
        )
        return found.model_copy(update=changes)

    def step(self, **changes):
        before = self.rollout
        seen = self.seen(**changes)
        self.seen_ready = seen.ready or self.silent
        after = advance(before, seen)
        if after is not before:
            assert after != before
            self.write(after, self.ledger)

    @rule(traffic=TRAFFIC, look_s=st.sampled_from([0.5, 2, 6, 11]))
    def time_passes_and_somebody_looks(self, traffic, look_s):
        self.now += timedelta(seconds=look_s)
        requests, errors, wrong = traffic
        self.canary = plus(self.canary, requests, errors, wrong)
        self.base = plus(self.base, 50, 0.0, 0.05)
        self.step()

    @rule()
    def the_endpoint_obeys(self):
        """The controller's hands: servers up, weights if it can, superfluous ones down."""
        self.servers |= set(desired_versions(self.rollout))
        self.weights = desired_weights(self.rollout)
        self.servers &= set(desired_versions(self.rollout)) | set(self.weights)

    @rule(looks=st.integers(1, 8))
    def all_is_well_for_a_while(self, looks):
        self.ready, self.away, self.silent = True, False, False
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

    @rule()
    def the_counters_restart(self):
        self.canary = self.base = Sample()

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
        stale = but(self.rollout, phase=Phase.DONE)
        record = next_record(read, RolloutChanged(rollout=stale), at=self.now, by="2", run="")
        try:
            extend(self.ledger, key(record.number), record.encode())
        except LedgerError:
            assert self.ledger.head == head
        else:
            raise AssertionError("a stale write was accepted")

    @rule()
    def the_controller_dies_and_reads_the_ledger_again(self):
        blob = self.ledger.records[-1].encode()
        event = type(self.ledger.records[-1]).model_validate_json(blob).event
        assert event.rollout == self.rollout

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
        path = [record.event.rollout.phase for record in self.ledger.records]
        if "v2" in desired_weights(self.rollout):
            assert Phase.SMOKE in path

    @invariant()
    def stable_is_up_until_the_end(self):
        if self.rollout.stable is not None and self.rollout.phase is not Phase.DONE:
            assert "v1" in desired_versions(self.rollout)

    @invariant()
    def a_finished_rollout_never_changes(self):
        ended = [r.event.rollout for r in self.ledger.records if finished(r.event.rollout)]
        assert len(ended) <= 1
        if ended:
            assert ended[0] == self.rollout

    def teardown(self):
        """From wherever the run has got to, a working endpoint brings it to an end."""
        if not self.ledger.records:
            return
        for _ in range(400):
            if finished(self.rollout):
                return
            self.the_endpoint_obeys()
            self.ready, self.away, self.broken, self.silent = True, False, False, False
            self.a_good_look()
        raise AssertionError(f"stuck in {self.rollout.phase}: {self.rollout.reason}")

    def a_good_look(self):
        self.now += timedelta(seconds=4)
        self.canary = plus(self.canary, 60, 0.0, 0.05)
        self.base = plus(self.base, 60, 0.0, 0.05)
        self.step()


def plus(before: Sample, requests: int, errors: float, wrong: float) -> Sample:
    failed = round(requests * errors)
    labels = requests - failed
    more = sample(requests, failed, labels=labels, wrong=round(labels * wrong))
    latency = zip(before.counts.latency, more.counts.latency, strict=True)
    counts = {
        "requests": before.counts.requests + requests,
        "errors": before.counts.errors + failed,
        "latency": tuple(a + b for a, b in latency),
    }
    labelled = {
        "labels": before.labelled.labels + labels,
        "correct": before.labelled.correct + more.labelled.correct,
    }
    return Sample.model_validate({"counts": counts, "labelled": labelled})


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
