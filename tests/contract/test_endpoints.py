"""What every place's endpoint and telemetry hold, by whatever they are built."""

import math
from contextlib import suppress

import pytest

from deployments import Desired, Observed, Release, Server
from policy.counts import Compared, Labelled, between
from policy.errors import EndpointError, Unsupported
from tests.contract.harness import QUESTION, bring, endpoint_of, is_as, traffic

ONE, TWO, NOBODY = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb", "2026.01.01-0000000"


@pytest.fixture
def two(harness):
    """Both releases; the endpoint serves the first, and has the second beside it."""
    releases = tuple(harness.make_release(version, answer=version) for version in (ONE, TWO))
    bring(harness, split(harness, releases, {ONE: 100}))
    return releases


def split(harness, releases, weights, **more):
    """Where the place can, the first release answers what another one fails to."""
    can = endpoint_of(harness).can
    fallback = releases[0].version if "fallback" in can else None
    return Desired(tuple(releases), weights, fallback, **more)


def must_do(harness, *capabilities):
    """Whether the place can; one that cannot refuses to be asked by name."""
    endpoint = endpoint_of(harness)
    if "pin" in capabilities and "pin" not in endpoint.can:
        with pytest.raises(Unsupported):
            endpoint.ask(ONE, [QUESTION])
    return endpoint.can >= {*capabilities}


def counts(harness, version):
    harness.counted()
    reading = harness.place.telemetry.read(harness.name, [version])
    return reading.samples[version]


# Orders


def test_an_endpoint_with_nothing_deployed_says_so(harness):
    idle = harness.place.endpoint(harness.idle)
    assert idle.observe() == Observed({}, {})
    reply = idle.ask(None, [QUESTION])
    assert (reply.status == 0 or reply.status >= 500, reply.predictions) == (True, ())
    assert reply.error


def test_an_order_is_taken_at_once_and_carried_out_when_servers_are_ready(harness, two):
    slow = harness.make_release("2026.11.22-ddddddd", ready_after_s=1.0)
    wanted = split(harness, [*two, slow], {slow.version: 100})
    endpoint_of(harness).apply(wanted)
    seen = endpoint_of(harness).observe()
    assert seen.servers.get(slow.version, Server("starting", "")).state == "starting"
    assert seen.weights == {ONE: 100}, "the split stays until all of it is ready"
    assert is_as(bring(harness, wanted), wanted)


def test_the_same_order_twice_is_one_order(harness, two):
    wanted = split(harness, two, {ONE: 60, TWO: 40})
    before = bring(harness, wanted)
    for _ in range(3):
        endpoint_of(harness).apply(wanted)
    assert endpoint_of(harness).observe() == before


@pytest.mark.parametrize("weights", [{ONE: 70, TWO: 30}, {ONE: 50, TWO: 50}, {TWO: 100}])
def test_weights_are_what_the_requests_follow(harness, two, weights):
    """Once in three tries: on a busy machine a late health check lets the fallback answer."""
    bring(harness, split(harness, two, weights))
    assert any(follows(harness, weights, asked=400) for _ in range(3))


def follows(harness, weights, asked):
    """Whether every version answered its share, give or take five standard deviations."""
    seen = [reply.version for reply in traffic(harness, asked)]
    shares = {version: weights.get(version, 0) / 100 for version in (ONE, TWO)}
    return all(
        abs(seen.count(version) - asked * share) <= 5 * math.sqrt(asked * share * (1 - share))
        for version, share in shares.items()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {ONE: 90, TWO: 20}}, "add up to 110"),
        ({"weights": {ONE: 110, TWO: -10}}, "percentages"),
        ({"weights": {ONE: 90, NOBODY: 10}}, "not among the desired releases"),
        ({"fallback": NOBODY}, "not among the desired releases"),
        ({"mirror": {NOBODY: 10}}, "not among the desired releases"),
        ({"mirror": {TWO: 10}}, "cannot be mirrored to"),
        ({"releases": (Release("../x", "0"),), "weights": {}}, "cannot stand in"),
    ],
)
def test_an_order_that_can_never_be_carried_out_changes_nothing(harness, two, change, message):
    before = bring(harness, split(harness, two, {ONE: 60, TWO: 40}))
    order = {"releases": two, "weights": {ONE: 60, TWO: 40}, **change}
    with pytest.raises(EndpointError, match=message):
        endpoint_of(harness).apply(Desired(**order))
    assert endpoint_of(harness).observe() == before


def test_without_any_weight_nothing_serves(harness, two):
    if not must_do(harness, "empty"):
        return
    bring(harness, split(harness, two, {}))
    assert {reply.status == 200 for reply in traffic(harness, 10)} == {False}


def test_a_version_goes_and_comes_back(harness, two):
    for _ in range(2):
        bring(harness, split(harness, two[:1], {ONE: 100}))
        bring(harness, split(harness, two, {ONE: 50, TWO: 50}))
    assert {reply.version for reply in traffic(harness, 60)} == {ONE, TWO}


def test_what_has_weight_is_not_removed_before_another_takes_it(harness, two):
    never = harness.make_release("2026.11.22-9e9e9e9", ready_after_s=10_000)
    for _ in range(5):
        endpoint_of(harness).apply(split(harness, [never], {never.version: 100}))
    seen = endpoint_of(harness).observe()
    assert seen.weights == {ONE: 100}
    assert seen.servers[ONE].state == "ready"
    assert {reply.version for reply in traffic(harness, 20)} == {ONE}


def test_another_digest_replaces_a_version_without_weight(harness, two):
    first = harness.make_release("2026.11.22-0d19e57", answer="first bytes")
    second = harness.make_release("2026.11.22-0d19e58", answer="other bytes")
    again = Release(first.version, second.digest)
    bring(harness, split(harness, [two[0], first], {ONE: 100}))
    bring(harness, split(harness, [two[0], again], {ONE: 100}))
    bring(harness, split(harness, [two[0], again], {again.version: 100}))
    with suppress(EndpointError):  # a place may refuse, or leave it as it is
        endpoint_of(harness).apply(split(harness, [two[0], first], {first.version: 100}))
    assert endpoint_of(harness).observe().servers[again.version].digest == again.digest
    assert {reply.version for reply in traffic(harness, 10)} == {again.version}


# Versions that cannot serve are values


def state_of(harness, release):
    server = endpoint_of(harness).observe().servers.get(release.version)
    return server.state if server is not None else "not there"


def test_a_server_that_gives_up_has_failed_with_its_last_words(harness, two):
    broken = harness.make_release("2026.11.22-eeeeeee", exit=1)
    wanted = split(harness, [*two, broken], {broken.version: 100})

    endpoint_of(harness).apply(wanted)
    harness.wait(lambda: state_of(harness, broken) == "failed")
    seen = endpoint_of(harness).observe()
    assert "told to exit with 1" in seen.servers[broken.version].reason
    assert seen.weights == {ONE: 100}


def test_a_release_with_one_changed_byte_has_failed_until_it_is_not_wanted(harness, two):
    bad = harness.make_release("2026.11.22-0badbad")
    harness.damage(bad)
    wanted = split(harness, [*two, bad], {ONE: 90, bad.version: 10})

    endpoint_of(harness).apply(wanted)
    harness.wait(lambda: state_of(harness, bad) == "failed")
    seen = endpoint_of(harness).observe()
    assert seen.servers[bad.version].digest == bad.digest
    assert "behaviour.json has SHA-256" in seen.servers[bad.version].reason
    assert seen.weights == {ONE: 100}
    bring(harness, split(harness, two, {ONE: 100}))


# Questions


def test_a_version_without_weight_can_be_asked_by_name(harness, two):
    if not must_do(harness, "pin"):
        return
    assert {reply.version for reply in traffic(harness, 30)} == {ONE}
    reply = endpoint_of(harness).ask(TWO, [QUESTION])
    assert (reply.status, reply.version) == (200, TWO)
    assert reply.predictions == ({"answer": TWO, "confidence": 1.0},)
    assert 0 < reply.latency_s < 5


def test_a_version_that_is_not_there_is_not_replaced_by_another(harness, two):
    if must_do(harness, "pin"):
        assert endpoint_of(harness).ask(NOBODY, [QUESTION]).status == 404


# Counts


def test_each_request_is_counted_once_with_its_time(harness, two):
    bring(harness, split(harness, two, {TWO: 100}))
    before = counts(harness, TWO)
    assert {reply.status for reply in traffic(harness, 25)} == {200}
    new = between(before, counts(harness, TWO))
    assert (new.counts.requests, new.counts.errors, sum(new.counts.latency)) == (25, 0, 25)
    assert not new.restarted


def test_a_version_that_nobody_knows_has_no_requests(harness, two):
    assert counts(harness, NOBODY).counts.requests == 0


def test_asking_by_name_is_no_traffic(harness, two):
    if not must_do(harness, "pin"):
        return
    before = counts(harness, TWO)
    assert {endpoint_of(harness).ask(TWO, [QUESTION]).status for _ in range(10)} == {200}
    assert counts(harness, TWO).counts == before.counts


def test_a_request_that_always_fails_is_one_error_of_the_version_chosen(harness):
    """Retries and the fallback, all in vain, are nobody's traffic."""
    pair = [harness.make_release(f"2026.11.22-fa17{n}", fails_every=1) for n in (1, 2)]
    bring(harness, split(harness, pair, {pair[0].version: 50, pair[1].version: 50}))
    before = [counts(harness, release.version) for release in pair]
    assert all(reply.status >= 500 for reply in traffic(harness, 60))
    after = [counts(harness, release.version) for release in pair]
    new = [between(*both).counts for both in zip(before, after, strict=True)]
    assert sum(one.requests for one in new) == sum(one.errors for one in new) == 60
    assert all(15 <= one.errors <= 45 for one in new), new
    assert all(sum(one.latency) == 0 for one in new)


def test_what_a_fallback_repaired_stays_an_error_of_the_version_chosen(harness, two):
    if not must_do(harness, "fallback"):
        return
    bad = harness.make_release("2026.11.22-9999999", fails_every=1)
    bring(harness, split(harness, [two[0], bad], {ONE: 50, bad.version: 50}))
    before = [counts(harness, version) for version in (ONE, bad.version)]
    replies = traffic(harness, 100)
    assert {(reply.status, reply.version) for reply in replies} == {(200, ONE)}
    after = [counts(harness, version) for version in (ONE, bad.version)]
    good, failed = (between(*both).counts for both in zip(before, after, strict=True))
    assert (good.errors, failed.errors) == (0, failed.requests)
    assert good.requests + failed.requests == 100
    assert 20 <= failed.requests <= 80


def test_a_mirror_gets_copies_that_no_client_sees(harness, two):
    if not must_do(harness, "mirror"):
        return
    bring(harness, split(harness, two, {ONE: 100}, mirror={TWO: 50}))
    before = counts(harness, TWO)
    assert {reply.version for reply in traffic(harness, 200)} == {ONE}
    copies = between(before, counts(harness, TWO)).counts
    assert (60 < copies.requests < 140, copies.errors) == (True, 0)
    bring(harness, split(harness, two, {ONE: 90, TWO: 10}))


def test_the_errors_of_copies_are_the_mirrors_alone(harness, two):
    if not must_do(harness, "mirror"):
        return
    bad = harness.make_release("2026.11.22-8888888", fails_every=1)
    bring(harness, split(harness, [two[0], bad], {ONE: 100}, mirror={bad.version: 100}))
    before = [counts(harness, version) for version in (ONE, bad.version)]
    assert {reply.status for reply in traffic(harness, 30)} == {200}
    after = [counts(harness, version) for version in (ONE, bad.version)]
    good, copies = (between(*both).counts for both in zip(before, after, strict=True))
    assert (good.requests, good.errors) == (30, 0)
    assert (copies.requests, copies.errors) == (30, 30)


# The known truth


def test_the_latest_record_of_a_source_replaces_its_earlier_ones(harness, two):
    telemetry, version = harness.place.telemetry, "2026.11.22-7777777"
    before = telemetry.read(harness.name, [version])
    one, two_ = Labelled(labels=5, correct=3), Labelled(labels=9, correct=6)
    telemetry.record(harness.name, "replay-a", {version: one}, {})
    telemetry.record(harness.name, "replay-a", {version: two_}, {})
    telemetry.record(
        harness.name, "people", {version: one}, {version: Compared(compared=4, differed=1)}
    )
    harness.counted()
    after = telemetry.read(harness.name, [version])
    assert after.samples[version].labelled == Labelled(labels=14, correct=9)
    assert after.compared == {version: Compared(compared=4, differed=1)}
    assert after.samples[version].epoch == before.samples[version].epoch
    assert after.complete_until > before.complete_until


def test_an_unknown_endpoint_is_named(harness):
    with pytest.raises(Unsupported, match="there is no endpoint 'elsewhere'"):
        harness.place.endpoint("elsewhere")
