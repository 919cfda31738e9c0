"""Live progress of a program, on a real Prefect server, and without one."""

import time

from prefect import flow

from tasks import progress
from tasks.progress import reporter


def record(done):
    return {"phase": "train", "done": done, "of": 3, "loss": 0.5}


def test_the_last_record_is_told_and_only_once(caplog):
    @flow
    def programs():
        with reporter("model.train") as report:
            for done in (1, 2, 3, 3):
                report(record(done))

    programs()
    told = [line for line in caplog.messages if line.startswith("model.train: ")]
    assert told[-1] == "model.train: train 3/3, loss 0.5"
    assert len(set(told)) == len(told)


def test_a_server_that_fails_or_hangs_costs_the_display_and_not_the_work(caplog, monkeypatch):
    def fails(**_arguments):
        raise RuntimeError("503")

    def hangs(**_arguments):
        time.sleep(60)

    monkeypatch.setattr(progress, "_LAST_WORDS_S", 0.2)
    for display in (fails, hangs):
        monkeypatch.setattr(progress, "create_progress_artifact", display)
        began = time.monotonic()
        with reporter("model.train") as report:
            for done in range(3):
                report(record(done))
        assert time.monotonic() - began < 5
    assert "the progress is not shown now: RuntimeError('503')" in caplog.text
