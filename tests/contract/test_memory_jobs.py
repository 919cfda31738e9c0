"""Jobs of the place `memory`, in its own time: they outlive their callers.

tests/contract/test_jobs.py holds real programs to the same promises.
"""

import pytest

from deployments import Job
from policy.errors import JobFailed, NotFound
from tests.places.memory import MemoryCloud, Settings

HOUR = 3600


class Dead(BaseException):
    pass


@pytest.fixture
def cloud():
    return MemoryCloud(Settings(job_s=HOUR))


@pytest.fixture
def jobs(cloud, tmp_path):
    return cloud.place(tmp_path).jobs


def job(cloud, tmp_path, **config):
    root = cloud.place(tmp_path).store.root
    return Job("k", "train", config, {}, f"{root}/runs/k")


def ignore(record):
    """Progress of which nobody wants to know."""


def hours(cloud):
    return cloud.time / 1e6 / HOUR


def ended(cloud, tmp_path, a_job):
    return (cloud.place(tmp_path).store.download(a_job.output) / "done").exists()


def test_one_takes_its_time_and_shows_how_far_it_is(cloud, jobs, tmp_path):
    seen = []
    jobs.run(job(cloud, tmp_path), seen.append)
    assert hours(cloud) == 1
    assert seen[-1] == {"phase": "train", "done": HOUR, "of": HOUR}
    assert ended(cloud, tmp_path, job(cloud, tmp_path))


def test_one_that_ended_well_does_not_start_again(cloud, jobs, tmp_path):
    for _ in range(2):
        jobs.run(job(cloud, tmp_path), ignore)
    assert hours(cloud) == 1


def test_another_content_under_the_same_key_is_done_anew(cloud, jobs, tmp_path):
    for steps in (1, 2):
        jobs.run(job(cloud, tmp_path, steps=steps), ignore)
    assert hours(cloud) == 2


def test_one_goes_on_without_its_caller_and_the_next_one_attaches(cloud, jobs, tmp_path):
    def die(record):
        if record["done"] >= HOUR / 2:
            raise Dead

    with pytest.raises(Dead):
        jobs.run(job(cloud, tmp_path), die)
    cloud.place(tmp_path).jobs.run(job(cloud, tmp_path), ignore)
    assert hours(cloud) == 1


def test_one_ends_though_nobody_comes_back(cloud, jobs, tmp_path):
    cloud.lie("run", "after", "the connection was reset")
    with pytest.raises(Exception, match="the connection was reset"):
        jobs.run(job(cloud, tmp_path), ignore)
    cloud.pass_time(HOUR)
    assert ended(cloud, tmp_path, job(cloud, tmp_path))


def test_a_failure_is_told_to_all_and_the_next_run_is_another_start(cloud, jobs, tmp_path):
    results = iter([JobFailed("it diverged", exit_code=3), {"done": b""}])

    def train(_job):
        result = next(results)
        if isinstance(result, JobFailed):
            raise result
        return result

    cloud.programs["train"] = train
    with pytest.raises(JobFailed, match="exit code 3\nit diverged") as failed:
        jobs.run(job(cloud, tmp_path), ignore)
    assert failed.value.exit_code == 3
    jobs.run(job(cloud, tmp_path), ignore)
    assert ended(cloud, tmp_path, job(cloud, tmp_path))


def test_one_that_is_cancelled_ends_with_15(cloud, jobs, tmp_path):
    def cancel(_record):
        cloud.place(tmp_path).jobs.cancel("k")

    with pytest.raises(JobFailed, match="cancelled") as failed:
        jobs.run(job(cloud, tmp_path), cancel)
    assert failed.value.exit_code == -15
    with pytest.raises(NotFound):
        cloud.place(tmp_path).store.download(job(cloud, tmp_path).output)
    jobs.cancel("nobody's")


def test_an_input_that_is_not_there_starts_nothing(cloud, jobs, tmp_path):
    root = cloud.place(tmp_path).store.root
    missing = Job("k", "train", {}, {"data": f"{root}/data"}, f"{root}/runs/k")
    with pytest.raises(NotFound, match="data"):
        jobs.run(missing, ignore)
    assert cloud.jobs == {}


def test_a_display_that_fails_does_not_end_the_job(cloud, jobs, tmp_path, caplog):
    def fail(_record):
        raise ConnectionError("503 from the server that shows it")

    jobs.run(job(cloud, tmp_path), fail)
    assert ended(cloud, tmp_path, job(cloud, tmp_path))
    assert "progress could not be shown" in caplog.text
