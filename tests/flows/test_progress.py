"""Live progress of a program, on a real Prefect server."""

from prefect import flow

from tasks.progress import reporter


def test_the_last_record_is_told_at_once_and_only_once(caplog):
    def record(done):
        return {"phase": "train", "done": done, "of": 3, "loss": 0.5}

    @flow
    def programs():
        with reporter("model.train") as report:
            for done in (1, 2, 3, 3):
                report(record(done))

    programs()
    told = [line for line in caplog.messages if line.startswith("model.train: ")]
    assert told == [f"model.train: train {done}/3, loss 0.5" for done in (1, 3)]
