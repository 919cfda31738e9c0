"""What every place's endpoint and telemetry hold, by whatever they are built."""

import math
import shutil
import time

import pytest

from deployments.releases.signing import new_key, sign
from policy.errors import EndpointError, ReleaseError, Unsupported
from tests.local.fixtures import serve, wait_ready

ASK = [{"question": "what colour?"}]
ONE, TWO = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"
STRANGER = new_key()


@pytest.fixture(scope="module")
def serving(production, make_release):
    """Two versions deployed, the first with all traffic."""
    serve(production, *(make_release(version, answer=version) for version in (ONE, TWO)))
    return production


@pytest.fixture
def both(serving):
    yield serving
    serving.set_weights({ONE: 100})


def test_an_endpoint_with_nothing_deployed_says_so(place):
    staging = place.endpoint("staging")
    reply = staging.send(None, ASK)
    assert (staging.weights(), list(staging.deployed())) == ({}, [])
    assert reply.status == 503
    assert reply.error == "nothing is deployed at endpoint staging"


def test_a_new_version_gets_no_traffic_but_can_be_asked_by_name(both):
    assert both.weights() == {ONE: 100}
    assert {both.send(None, ASK).version for _ in range(30)} == {ONE}
    reply = both.send(TWO, ASK)
    assert (reply.status, reply.version) == (200, TWO)
    assert reply.predictions == ({"answer": TWO, "confidence": 1.0},)
    assert 0 < reply.latency_s < 5


def test_a_version_that_is_not_there_is_not_replaced_by_another(both):
    reply = both.send("2026.01.01-0000000", ASK)
    assert reply.status == 404
    assert "no such version" in reply.error


@pytest.mark.parametrize("percent", [{ONE: 70, TWO: 30}, {ONE: 50, TWO: 50}, {TWO: 100}])
def test_weights_are_what_the_requests_follow(both, percent):
    """Once in three tries: on a busy machine a late health check lets the fallback answer."""
    both.set_weights(percent)
    assert both.weights() == percent
    assert any(_follow(both, percent, asked=400) for _ in range(3))


def _follow(endpoint, percent, asked):
    """Whether every version answered its share, give or take five standard deviations."""
    seen = [endpoint.send(None, ASK).version for _ in range(asked)]
    shares = {version: percent.get(version, 0) / 100 for version in (ONE, TWO)}
    return all(
        abs(seen.count(version) - asked * share) <= 5 * math.sqrt(asked * share * (1 - share))
        for version, share in shares.items()
    )


@pytest.mark.parametrize(
    ("percent", "message"),
    [
        ({ONE: 90, TWO: 20}, "add up to 110"),
        ({ONE: 110, TWO: -10}, "percentages"),
        ({ONE: 90, "2026.01.01-0000000": 10}, "is not deployed"),
    ],
)
def test_wrong_weights_are_refused_and_the_split_stays(both, percent, message):
    both.set_weights({ONE: 60, TWO: 40})
    with pytest.raises(EndpointError, match=message):
        both.set_weights(percent)
    assert both.weights() == {ONE: 60, TWO: 40}


def test_without_any_weight_nothing_serves_but_versions_can_be_asked_by_name(both):
    both.set_weights({})
    assert both.weights() == {}
    assert both.send(None, ASK).status == 503
    assert both.send(TWO, ASK).status == 200


def test_deploying_again_changes_nothing(both, make_release):
    both.set_weights({ONE: 60, TWO: 40})
    before = list(both.deployed())
    both.deploy(make_release(TWO))
    assert (list(both.deployed()), both.weights()) == (before, {ONE: 60, TWO: 40})


def test_a_version_with_weight_is_not_undeployed(both):
    both.set_weights({ONE: 60, TWO: 40})
    with pytest.raises(EndpointError, match=f"{TWO} has 40 %"):
        both.undeploy(TWO)
    assert both.send(TWO, ASK).status == 200


def test_a_version_can_go_and_come_back(both, make_release):
    third = make_release("2026.11.22-ccccccc")
    for _ in range(2):
        both.deploy(third)
        wait_ready(both, third.version)
        assert both.send(third.version, ASK).status == 200
        both.undeploy(third.version)
        both.undeploy(third.version)
        assert third.version not in both.deployed()
        assert both.send(third.version, ASK).status == 404


def test_asking_whether_an_unknown_version_is_ready_is_an_error(both):
    with pytest.raises(EndpointError, match="is not deployed"):
        both.ready("2026.01.01-0000000")


def test_a_server_that_takes_its_time_is_ready_when_it_says_so(both, make_release):
    slow = make_release("2026.11.22-ddddddd", ready_after_s=0.8)
    both.deploy(slow)
    assert not both.ready(slow.version)
    wait_ready(both, slow.version)
    both.undeploy(slow.version)


def test_a_server_that_gives_up_is_an_error_with_its_last_words(both, make_release):
    broken = make_release("2026.11.22-eeeeeee", exit=1)
    both.deploy(broken)
    with pytest.raises(EndpointError, match=r"will not serve.*\n.*told to exit with 1"):
        wait_ready(both, broken.version)
    assert both.weights() == {ONE: 100}
    both.undeploy(broken.version)


def test_a_release_with_one_changed_byte_is_not_deployed(both, make_release, root):
    release = make_release("2026.11.22-fffffff")
    stored = root / "releases" / release.digest / "behaviour.json"
    stored.write_text(stored.read_text().replace("f", "g", 1))
    with pytest.raises(ReleaseError, match=r"behaviour\.json has SHA-256"):
        both.deploy(release)
    assert release.version not in both.deployed()


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (lambda made, _other: (made / "SIGNATURE").unlink(), "it has no SIGNATURE"),
        (lambda made, _other: sign(made, STRANGER), "which is not trusted"),
        (lambda made, other: shutil.copy(other / "SIGNATURE", made), "does not hold"),
    ],
    ids=["none", "a stranger's", "another release's"],
)
def test_a_release_without_a_trusted_signature_is_not_deployed(
    both, make_release, root, forge, told
):
    release = make_release(f"2026.11.22-{told.replace(' ', '')}".lower())
    stored = root / "releases" / release.digest
    forge(stored, root / "releases" / make_release(ONE).digest)
    with pytest.raises(ReleaseError, match=told):
        both.deploy(release)
    assert release.version not in both.deployed()
    assert both.weights() == {ONE: 100}


def test_a_bad_body_is_the_callers_fault(both):
    reply = both.send(None, [{"not a question": 1}])
    assert reply.status == 400
    assert "question" in reply.error


def test_what_a_place_cannot_do_is_named(both):
    both.capabilities("canary", "pin")
    with pytest.raises(Unsupported, match="teleport"):
        both.capabilities("canary", "teleport")


def test_each_answer_is_counted_once_with_its_time(both, place):
    def count():
        time.sleep(1.3)
        return place.telemetry.counts("production", TWO)

    before = count()
    for _ in range(25):
        assert both.send(TWO, ASK).status == 200
    after = count()
    assert (after.requests - before.requests, after.errors - before.errors) == (25, 0)
    assert sum(after.latency) - sum(before.latency) == 25
    assert place.telemetry.counts("production", "2026.01.01-0000000").requests == 0


def test_failed_attempts_count_against_the_version_though_no_client_sees_them(
    both, place, make_release
):
    bad = make_release("2026.11.22-9999999", fails_every=2)
    both.deploy(bad)
    wait_ready(both, bad.version)
    both.set_weights({ONE: 50, bad.version: 50})
    replies = [both.send(None, ASK) for _ in range(200)]
    assert {reply.status for reply in replies} == {200}
    time.sleep(1.3)
    counts = place.telemetry.counts("production", bad.version)
    answered = sum(reply.version == bad.version for reply in replies)
    assert counts.requests - counts.errors == answered
    assert counts.errors == pytest.approx(answered, abs=2)  # two replicas, each its every 2nd
    both.set_weights({ONE: 100})
    both.undeploy(bad.version)


def test_a_shadow_gets_copies_that_no_client_sees(both, place):
    before = place.telemetry.counts("production", TWO)
    both.mirror(TWO, 50)
    assert (both.mirrored(), both.weights()) == ({TWO: 50}, {ONE: 100})
    assert {both.send(None, ASK).version for _ in range(200)} == {ONE}
    time.sleep(1.3)
    copies = place.telemetry.counts("production", TWO).requests - before.requests
    assert 60 < copies < 140
    both.mirror(TWO, 0)
    assert both.mirrored() == {}


def test_a_version_with_weight_is_no_shadow(both):
    both.mirror(TWO, 50)
    both.set_weights({ONE: 90, TWO: 10})
    assert both.mirrored() == {}
    with pytest.raises(EndpointError, match="cannot be mirrored"):
        both.mirror(TWO, 50)
