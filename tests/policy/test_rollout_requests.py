"""What a request does at once, and what no request may hold."""

import pytest

from policy.errors import Refused
from policy.ledger import fold
from policy.rollout.requests import Request, ask
from tests.policy.test_ledger import chain, requested, rollout
from tests.policy.worlds import NOW, Phase, in_phase, make_plan

PLAN = make_plan()


def request(kind="rollout", **fields):
    known = {
        "by": "ann",
        "why": "why",
        "version": "v2" if kind == "rollout" else "",
        "plan": PLAN,
    }
    return Request(id="one", kind=kind, endpoint="production", **{**known, **fields})


def asked(request, unfinished=None, promoted=("v0", "v1")):
    return ask(request, unfinished, promoted, NOW, "production-7")


@pytest.mark.parametrize("words", ["", "  ", "a\ud800b", "x" * 1001])
@pytest.mark.parametrize("field", ["by", "why"])
@pytest.mark.parametrize("kind", ["rollout", "rollback", "abort"])
def test_who_and_why_are_words_that_a_ledger_can_keep(kind, field, words):
    with pytest.raises(Refused, match="one sentence of at most 1000"):
        asked(request(kind, **{field: words}), unfinished=in_phase(Phase.STEP))


@pytest.mark.parametrize("kind", ["rollback", "abort"])
def test_who_and_why_are_one_line_that_steers_no_terminal(kind):
    hostile = request(kind, by="ann\r\x1b[2J", why="bad\nproblem none\x00")
    effect = asked(hostile, unfinished=in_phase(Phase.STEP))
    kept = effect.answer.request
    assert (kept.by, kept.why) == ("ann  [2J", "bad problem none")
    assert effect.answer.reason == "" or effect.answer.reason.isprintable()
    assert effect.rollout.reason.isprintable()


@pytest.mark.parametrize("field", ["by", "why"])
def test_control_characters_alone_are_no_words(field):
    with pytest.raises(Refused, match="has 0 characters"):
        asked(request(**{field: "\x00\x1b"}))


@pytest.mark.parametrize("unfinished", [None, in_phase(Phase.STEP)])
def test_a_rollout_without_a_plan_is_refused_even_if_it_would_have_to_wait(unfinished):
    with pytest.raises(Refused, match="has no plan"):
        asked(request(version="v3", plan=None), unfinished)


def test_nothing_that_waited_begins_by_itself_after_a_rollback():
    waits = requested("next", version="v3")
    back = requested("back", kind="rollback", rollout="production-1")
    state = fold(chain(rollout("v1", Phase.STEP), waits))
    assert state.waiting("production").request.id == "next"
    state = fold(chain(rollout("v1", Phase.STEP), waits, back))
    assert state.waiting("production") is None
    told = state.requests["next"]
    assert (told.decided, told.came_true) == (True, False)
    assert told.reason.startswith("withdrawn: ")
