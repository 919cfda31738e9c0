"""What every place's Jobs hold. tests/local/chores.py is the program that they run."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from policy.errors import JobFailed, NotFound
from tests.places.jobs import JOBS


@pytest.fixture(params=JOBS)
def world(request, tmp_path):
    with JOBS[request.param](tmp_path) as opened:
        yield opened


def ignore(record):
    """Progress of which nobody wants to know."""


def starts(world, output="runs/out"):
    return len(world.file("starts", output).splitlines())


class Progress:
    """Remembers what it was told, and can be waited for."""

    def __init__(self):
        self.seen, self.began = [], threading.Event()

    def __call__(self, record):
        self.seen.append(record)
        self.began.set()


def started(pool, world, job):
    """Run a job in another thread, with Jobs of its own; wait until it shows progress."""
    progress = Progress()
    future = pool.submit(world.jobs().run, job, progress)
    assert progress.began.wait(20)
    return future


class TestOneJob:
    def test_a_program_gets_its_configuration_inputs_and_output(self, world):
        progress = Progress()
        world.jobs().run(world.chores({"steps": 6}, data="somewhere"), progress)
        done = [record["done"] for record in progress.seen]
        assert done == sorted(set(done))
        assert done[-1] == 6
        assert world.file("done") == "somewhere"
        assert "a line of log" in world.file("job.log")

    def test_an_input_in_the_store_is_a_folder_for_the_program(self, world, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data/data.txt").write_text("of the store")
        uri = f"{world.store.root}/data/1"
        world.store.upload(tmp_path / "data", uri)
        world.jobs().run(world.chores({}, data=uri), ignore)
        assert world.file("done") == "of the store"

    def test_an_input_that_is_not_there_starts_nothing(self, world):
        job = world.chores({}, data=f"{world.store.root}/data/1")
        with pytest.raises(NotFound, match="data"):
            world.jobs().run(job, ignore)
        with pytest.raises(NotFound):
            world.store.download(job.output)

    @pytest.mark.parametrize("code", [2, 3])
    def test_bad_input_and_divergence_are_not_tried_again(self, world, code):
        told = rf"exit code {code}\na line of log\nerror: told to"
        with pytest.raises(JobFailed, match=told) as failed:
            world.jobs().run(world.chores({"exit": code}), ignore)
        assert failed.value.exit_code == code
        with pytest.raises(NotFound):
            world.store.download(world.chores({}).output)

    @pytest.mark.parametrize("code", [1, 75, -9])
    def test_a_crash_or_a_spot_warning_is_followed_by_another_start(self, world, code):
        world.jobs().run(world.chores({"exit": code, "until_start": 3}), ignore)
        assert starts(world) == 3

    def test_a_program_that_keeps_crashing_fails_with_its_signal(self, world):
        with pytest.raises(JobFailed, match="exit code -9 after 2 restarts") as failed:
            world.jobs().run(world.chores({"exit": -9}), ignore)
        assert failed.value.exit_code == -9

    def test_the_time_limit_ends_a_program(self, world):
        start = time.monotonic()
        with pytest.raises(JobFailed, match=r"not done after 2 s \(compute.timeout_s") as late:
            world.jobs(timeout_s=1.5).run(world.chores({"steps": 600}), ignore)
        assert late.value.exit_code == -15
        assert time.monotonic() - start < 8


class TestTheSameJobTwice:
    def test_one_that_ended_well_does_not_start_again(self, world):
        job = world.chores({})
        world.jobs().run(job, ignore)
        world.jobs().run(job, ignore)
        assert starts(world) == 1

    @pytest.mark.parametrize(
        "changed", [{"data": "version 2"}, {"told": {"steps": 2}}], ids=["input", "config"]
    )
    def test_another_content_under_the_same_key_is_done_anew(self, world, changed):
        """A benchmark that is pinned to another version is scored again."""
        world.jobs().run(world.chores({"steps": 1}, data="version 1"), ignore)
        again = {"told": {"steps": 1}, "data": "version 1", **changed}
        world.jobs().run(world.chores(**again), ignore)
        assert world.file("done") == again["data"]
        assert starts(world) == 1, "in a folder of its own"

    def test_one_that_failed_goes_on_from_what_it_wrote(self, world):
        with pytest.raises(JobFailed):
            world.jobs().run(world.chores({"exit": 2, "until_start": 2}), ignore)
        world.jobs().run(world.chores({"exit": 2, "until_start": 2}), ignore)
        assert starts(world) == 2

    def test_one_that_runs_is_attached_to(self, world):
        job, second = world.chores({"steps": 30}), Progress()
        with ThreadPoolExecutor() as pool:
            first = started(pool, world, job)
            world.jobs().run(job, second)
            first.result()
        assert starts(world) == 1
        assert second.seen[-1]["done"] >= 20, "it saw how the other one went on"

    def test_all_who_wait_learn_how_it_failed(self, world):
        job = world.chores({"steps": 600, "save_s": 0})
        with ThreadPoolExecutor() as pool:
            waiting = [started(pool, world, job) for _ in range(3)]
            world.jobs().cancel(job.key)
            for future in waiting:
                with pytest.raises(JobFailed, match="was cancelled") as failed:
                    future.result(timeout=20)
                assert failed.value.exit_code == -15


class TestCancel:
    def test_it_stops_within_seconds_and_its_checkpoint_stays(self, world):
        job = world.chores({"steps": 600, "save_s": 0.5})
        with ThreadPoolExecutor() as pool:
            running = started(pool, world, job)
            start = time.monotonic()
            world.jobs().cancel(job.key)
            with pytest.raises(JobFailed, match="its checkpoint stays") as failed:
                running.result(timeout=20)
        assert failed.value.exit_code == -15
        assert time.monotonic() - start < 5
        world.jobs().run(world.chores({"steps": 1, "save_s": 0.5}), ignore)
        assert starts(world) == 2
        assert world.file("checkpoint") == "saved"

    def test_one_that_does_not_run_is_no_error_and_can_run_later(self, world):
        world.jobs().cancel("k")
        world.jobs().run(world.chores({}), ignore)
        world.jobs().cancel("k")
        assert starts(world) == 1


class TestProgress:
    def test_a_display_that_fails_does_not_end_the_job(self, world, caplog):
        calls = []

        def fail(record):
            calls.append(record)
            raise ConnectionError("503 from the server that shows it")

        world.jobs().run(world.chores({"steps": 8}), fail)
        assert len(calls) > 1, "it is tried again: the server may be back"
        assert caplog.text.count("progress could not be shown; the job goes on") == 1

    def test_a_display_that_hangs_does_not_hold_the_program_up(self, world):
        """More is printed than any pipe holds; only the latest is shown afterwards."""
        seen = []

        def hang(record):
            seen.append(record)
            if len(seen) == 1:
                time.sleep(3)

        world.jobs().run(world.chores({"steps": 1, "spew": 2000}), hang)
        assert len(seen) <= 4
        assert seen[-1]["phase"] == "chores"

    @pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
    def test_one_that_ends_its_caller_leaves_no_program_behind(self, world, end):
        job = world.chores({"steps": 600, "save_s": 0})

        def stop(record):
            if record.get("done", 0) >= 3:
                raise end

        with pytest.raises(end):
            world.jobs().run(job, stop)
        world.jobs().run(world.chores({"steps": 1}), ignore)
        assert world.file("job.log").count("the checkpoint is saved") == 1
