"""What every place's Jobs hold. tests/local/chores.py is the program that they run."""

import time

import pytest

from deployments import local
from policy.errors import JobFailed

CHORES = "tests.local.chores"


@pytest.fixture
def jobs(config):
    limits = config.compute.model_copy(update={"restarts_max": 2, "timeout_s": 60})
    return local.connect(config.model_copy(update={"compute": limits})).jobs


def test_a_program_gets_its_configuration_inputs_and_output(jobs, tmp_path):
    seen = []
    jobs.run(
        CHORES, {"steps": 3}, {"data": "somewhere"}, tmp_path / "out", on_progress=seen.append
    )
    assert [record["done"] for record in seen] == [1, 2, 3]
    assert (tmp_path / "out" / "done").read_text() == "somewhere"
    assert "a line of log" in (tmp_path / "out" / "job.log").read_text()


@pytest.mark.parametrize("code", [2, 3])
def test_bad_input_and_divergence_are_not_tried_again(jobs, tmp_path, code):
    with pytest.raises(JobFailed, match=rf"exit code {code}\n(.*\n)*error: told to") as failed:
        jobs.run(CHORES, {"exit": code}, {}, tmp_path)
    assert failed.value.exit_code == code
    assert starts(tmp_path) == 1


@pytest.mark.parametrize("code", [1, 75, -9])
def test_a_crash_or_a_spot_warning_is_followed_by_another_start(jobs, tmp_path, code):
    jobs.run(CHORES, {"exit": code, "until_start": 3}, {}, tmp_path)
    assert starts(tmp_path) == 3
    assert (tmp_path / "done").exists()


def test_a_program_that_keeps_crashing_fails_with_its_signal(jobs, tmp_path):
    with pytest.raises(JobFailed, match="exit code -9 after 2 restarts") as failed:
        jobs.run(CHORES, {"exit": -9}, {}, tmp_path)
    assert failed.value.exit_code == -9
    assert starts(tmp_path) == 3


def test_the_time_limit_ends_a_program(config, tmp_path):
    limits = config.compute.model_copy(update={"timeout_s": 1.5})
    jobs = local.connect(config.model_copy(update={"compute": limits})).jobs
    start = time.monotonic()
    with pytest.raises(JobFailed, match=r"not done after 2 s \(compute.timeout_s\)"):
        jobs.run(CHORES, {"steps": 600}, {}, tmp_path)
    assert time.monotonic() - start < 6


def test_a_caller_that_fails_leaves_no_program_behind(jobs, tmp_path):
    def stop(record):
        if record["done"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.run(CHORES, {"steps": 600}, {}, tmp_path, on_progress=stop)
    before = (tmp_path / "alive").read_text()
    time.sleep(0.5)
    assert (tmp_path / "alive").read_text() == before


def starts(output):
    return len((output / "starts").read_text().splitlines())
