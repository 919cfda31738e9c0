"""The known truth of live answers: whole, added up once, however many have told of it."""

import multiprocessing
import os
import signal
import time

import pytest

from deployments.local.labels import Answers
from policy.counts import Compared, Labelled
from policy.errors import StoreError

ONE, TWO = "v1", "v2"


@pytest.fixture
def answers(tmp_path):
    return Answers(tmp_path / "endpoints" / "e" / "answers.db")


def told(labels, correct):
    return Labelled(labels=labels, correct=correct)


def test_sources_add_up_and_each_counts_once(answers):
    answers.record("a", {ONE: told(3, 2), TWO: told(1, 0)}, {TWO: Compared(compared=2)})
    answers.record("b", {ONE: told(5, 5)}, {})
    answers.record("a", {ONE: told(4, 3)}, {})
    known = answers.read()
    assert known.labelled == {ONE: told(9, 8)}
    assert known.compared == {}


def test_nothing_told_is_nothing_known(answers):
    known = answers.read()
    assert (known.labelled, known.compared) == ({}, {})
    assert answers.read().epoch == known.epoch


def test_answers_that_vanish_begin_a_new_life(answers):
    answers.record("a", {ONE: told(3, 2)}, {})
    before = answers.read()
    answers._path.unlink()
    after = answers.read()
    assert after.labelled == {}
    assert after.epoch != before.epoch


def test_a_damaged_file_is_named(answers):
    answers.record("a", {ONE: told(3, 2)}, {})
    answers._path.write_bytes(b"no database" * 1000)
    for call in (answers.read, lambda: answers.record("a", {}, {})):
        with pytest.raises(StoreError, match=r"answers\.db cannot be read or written"):
            call()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be read or written"):
        Answers(tmp_path / "file" / "answers.db").record("a", {}, {})


def _tell(path, source):
    answers, labels = Answers(path), 0
    while True:
        labels += 1
        answers.record(source, {ONE: told(labels, labels), TWO: told(labels, 0)}, {})


def test_writers_killed_in_the_middle_leave_whole_records(answers):
    """Each writes both versions alike, so a half record would tell them apart."""
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        writers = [
            context.Process(target=_tell, args=(answers._path, source)) for source in "ab"
        ]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 20
        while not (answers.read().labelled and time.monotonic() > deadline - 18.5):
            assert time.monotonic() < deadline
            known = answers.read().labelled
            assert known.get(ONE, told(0, 0)).labels == known.get(TWO, told(0, 0)).labels
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        known = answers.read().labelled
        assert known[ONE].labels == known[TWO].labels > 0


def test_a_look_stays_quick_after_ten_thousand_replays(answers):
    with answers._transaction("IMMEDIATE") as database:
        rows = ((f"replay-{n}", v, 100, 90, 0, 0) for n in range(10_000) for v in (ONE, TWO))
        database.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
    start = time.perf_counter()
    known = answers.read()
    took_s = time.perf_counter() - start
    print(f"{took_s * 1000:.1f} ms")
    assert known.labelled == {ONE: told(1_000_000, 900_000), TWO: told(1_000_000, 900_000)}
    assert took_s < 0.5
