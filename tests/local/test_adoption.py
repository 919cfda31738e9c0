"""supervisord is killed with -9: what serves goes on, and the next one takes it over."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from deployments import Desired, local
from deployments.local.layout import layout_of
from deployments.local.servers import ports_of
from deployments.local.stack import life as stack
from deployments.local.stack.life import start_programs
from deployments.local.stack.ports import is_free
from deployments.local.supervisor import launch, programs
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from policy.errors import EndpointSilent
from tests.local.fixtures import SERVER, bring, configured, maker, serve, start_endpoints, until
from tests.local.living import processes, watchers
from tests.local.load import load

VERSION, OTHER = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"


@pytest.fixture(scope="module")
def root():
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def config(root):
    made = configured(root)
    yield made
    Supervisor(layout_of(made)).shutdown()


@pytest.fixture(scope="module")
def make_release(root):
    return maker(root)


@pytest.fixture
def production(config, make_release):
    """Serves VERSION, and nothing else, by two servers; whatever the test before has left."""
    start_endpoints(config)
    production = local.connect(config, server=SERVER).endpoint("production")
    serve(production, make_release(VERSION))
    return production


def kill_supervisord(config):
    daemon = psutil.Process(int((layout_of(config).supervisor / "supervisord.pid").read_text()))
    daemon.kill()
    until(lambda: not daemon.is_running())


def until_all_are_watched(config):
    """Wait for the next supervisord to have taken over two Envoys and two servers."""
    layout, deadline = layout_of(config), time.monotonic() + 60
    while True:
        seen = Supervisor(layout).processes()
        runs = {process.pid for process in seen if process.state == "RUNNING"}
        if watchers(config) == runs and len(runs) == len(seen) == 4:
            return
        said = {log.name: log.read_text()[-500:] for log in layout.logs.glob("*.log")}
        assert time.monotonic() < deadline, (watchers(config), seen, said)
        time.sleep(0.1)


def test_no_request_fails_though_supervisord_is_killed_twice(config, production):
    before = processes(config)
    assert len(before) == 2 + 2  # Envoys and servers
    with load(production.url) as seen:
        for _ in range(2):
            kill_supervisord(config)
            assert not Supervisor(layout_of(config)).running()
            start_endpoints(config)
            until_all_are_watched(config)
        until(lambda: production.observe().weights == {VERSION: 100})
        sent = seen.sent
        until(lambda: seen.sent > sent + 100)
    assert seen.failed == 0, seen.answers
    assert processes(config) == before
    stack.down(config, lambda line: None)
    assert not processes(config)
    assert not watchers(config)
    assert [pid for pid in before if psutil.pid_exists(pid)] == []


@pytest.mark.slow
def test_a_supervisord_that_is_killed_while_it_takes_over_ends_nothing(config, production):
    before = processes(config)
    with load(production.url) as seen:
        for after_s in (0.0, 0.05, 0.2, 0.5):
            kill_supervisord(config)
            Supervisor(layout_of(config)).start()
            time.sleep(after_s)
        until_all_are_watched(config)
    assert seen.failed == 0, seen.answers
    assert processes(config) == before


@pytest.mark.slow
def test_what_was_taken_over_is_started_again_when_it_dies(config, production):
    kill_supervisord(config)
    start_endpoints(config)
    until_all_are_watched(config)
    before = processes(config)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(processes(config) - before) == len(before), limit_s=90)
    until(lambda: production.ask(None, [{"question": "q"}]).status == 200, limit_s=90)
    assert not watchers(config)


@pytest.mark.slow
def test_a_watcher_that_is_killed_costs_nothing(config, production):
    kill_supervisord(config)
    start_endpoints(config)
    until_all_are_watched(config)
    before = processes(config)
    with load(production.url) as seen:
        for watcher in watchers(config):
            os.kill(watcher, signal.SIGKILL)
        until_all_are_watched(config)
    assert seen.failed == 0, seen.answers
    assert processes(config) == before


@pytest.mark.slow
def test_a_version_that_was_taken_over_is_undeployed_with_its_processes(
    config, production, make_release
):
    kill_supervisord(config)
    start_endpoints(config)
    old = processes(config, SERVER)
    bring(
        production, Desired((make_release(VERSION), other := make_release(OTHER)), {OTHER: 100})
    )
    serve(production, other)
    until(lambda: not any(psutil.pid_exists(pid) for pid in old))
    assert len(processes(config, SERVER)) == 2
    assert not [*layout_of(config).alive.glob(f"*{VERSION}*")]


@pytest.mark.slow
def test_what_should_run_otherwise_is_ended_and_started_so(config, production, root):
    kill_supervisord(config)
    old, servers = processes(config, "envoy"), processes(config, SERVER)
    moved = configured(root)
    start_endpoints(moved)
    until(lambda: not any(psutil.pid_exists(pid) for pid in old))
    there = local.connect(moved, server=SERVER).endpoint("production")
    until(lambda: there.ask(None, [{"question": "q"}]).status == 200)
    assert is_free(ports_of(config, "production").port)
    assert processes(moved, SERVER) == servers


@pytest.mark.slow
def test_down_ends_what_a_killed_supervisord_has_left(config, production):
    before = processes(config)
    kill_supervisord(config)
    stack.down(config, lambda line: None)
    assert [pid for pid in before if psutil.pid_exists(pid)] == []


@pytest.mark.slow
def test_what_nobody_takes_over_is_ended(config, production):
    """A worker's flows would otherwise run on beside those of the next worker."""
    waiting = Program(
        "worker", [sys.executable, "-c", "import time; time.sleep(600)"], {}, Path.cwd()
    )
    start_programs(config, [waiting])
    until(lambda: processes(config, "time.sleep"))
    [old] = processes(config, "time.sleep")
    kept = processes(config) - {old}
    kill_supervisord(config)
    Supervisor(layout_of(config)).end_orphans()
    assert processes(config) == kept
    Supervisor(layout_of(config)).remove("worker")


@pytest.mark.slow
def test_what_serves_goes_on_though_supervisord_s_socket_was_deleted(config, production):
    before = processes(config)
    layout_of(config).socket.unlink()
    with load(production.url) as seen:
        start_endpoints(config)
        until_all_are_watched(config)
    assert seen.failed == 0, seen.answers
    assert processes(config) == before
    assert len(Supervisor(layout_of(config))._daemons()) == 1


@pytest.mark.slow
def test_one_that_hangs_is_replaced_like_a_dead_one(config, production, monkeypatch):
    monkeypatch.setattr(programs, "_HANGS_S", 2)
    before = processes(config)
    daemon = int((layout_of(config).supervisor / "supervisord.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    with load(production.url) as seen:
        start_endpoints(config)
        until_all_are_watched(config)
    assert seen.failed == 0, seen.answers
    assert processes(config) == before
    assert not psutil.pid_exists(daemon)


@pytest.mark.slow
def test_nothing_is_lost_of_a_log_whose_supervisord_was_killed(config, production):
    log = layout_of(config).logs / f"model-production-{VERSION}-0.log"
    told = log.read_text()
    kill_supervisord(config)
    start_endpoints(config)
    until(lambda: "it goes on, and is watched" in log.read_text())
    assert log.read_text().startswith(told)


class Launched:
    """launch.py by hand, under a lock of its own."""

    def __init__(self, folder):
        self.alive, self.log, self.started = folder / "alive", folder / "log", []

    def line(self, command, what="this", stop_s=5):
        files = [str(self.alive), str(self.log)]
        return [
            sys.executable,
            "-I",
            "-S",
            launch.__file__,
            *files,
            what,
            str(stop_s),
            *command,
        ]

    def __call__(self, *command, **more):
        process = subprocess.Popen(self.line(command, **more), start_new_session=True)
        self.started.append(process)
        return process

    def running(self):
        """The process that holds the lock, once one does."""
        until(lambda: self.alive.exists() and launch.holder_in(self.alive.read_bytes()).lives)
        return launch.holder_in(self.alive.read_bytes()).pid


@pytest.fixture
def launched(tmp_path):
    made = Launched(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


SLEEP = ("/bin/sleep", "600")
STUBBORN = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); "
            "print('deaf', flush=True); time.sleep(600)")  # fmt: skip


def test_it_becomes_the_command(launched):
    process = launched(*SLEEP)
    assert launched.running() == process.pid
    until(lambda: psutil.Process(process.pid).cmdline() == [*SLEEP])


def test_the_same_is_not_started_twice(launched):
    first = launched(*SLEEP)
    assert launched.running() == first.pid
    second = launched(*SLEEP)
    until(lambda: f"process {first.pid} runs this already" in launched.log.read_text())
    first.kill()
    first.wait()
    assert second.wait(10) == 1  # for supervisord: it ended, start it again


def test_something_else_is_ended_first(launched):
    first = launched(*SLEEP)
    launched.running()
    second = launched(*SLEEP, what="that")
    assert first.wait(10) == -signal.SIGTERM
    until(lambda: launched.running() == second.pid)


@pytest.mark.parametrize("what", ["this", "that"])
def test_what_does_not_want_to_end_is_killed_in_time(launched, what):
    first = launched(*STUBBORN, stop_s=1)
    launched.running()
    until(lambda: "deaf" in launched.log.read_text())
    second = launched(*STUBBORN, what=what, stop_s=1)
    if what == "this":
        until(lambda: "runs this already" in launched.log.read_text())
        second.terminate()
    assert first.wait(10) == -signal.SIGKILL


def test_no_later_process_of_the_same_number_is_taken_for_the_old_one(launched):
    stranger = subprocess.Popen([*SLEEP], start_new_session=True)
    launched.started.append(stranger)
    record = f'[{stranger.pid}, "long ago", "this"]'
    launched.alive.write_text(record.ljust(512))
    process = launched(*SLEEP)
    until(lambda: launched.running() == process.pid)
    assert stranger.poll() is None


def test_a_torn_record_is_written_anew(launched):
    launched.alive.write_text('[12, "3')
    process = launched(*SLEEP)
    until(lambda: launched.running() == process.pid)


def test_a_long_log_begins_anew_with_the_next_process(launched):
    launched.log.write_bytes(b"x" * (launch.LOG_BYTES_MAX + 1))
    launched("/bin/echo", "here").wait()
    assert launched.log.read_text() == "here\n"
    assert launched.log.with_name("log.1").stat().st_size > launch.LOG_BYTES_MAX


def test_the_launcher_is_quick(launched):
    """It stands between an Envoy that died and the next one."""
    started = time.monotonic()
    for _ in range(5):
        launched("/bin/true").wait()
    assert (time.monotonic() - started) / 5 < 1


def test_a_canary_is_seen_and_loses_its_traffic_though_supervisord_is_dead(
    config, production, make_release
):
    """An abort, or a rollback by what the canary answers, must not wait for somebody's `up`."""
    both = make_release(VERSION), make_release(OTHER)
    bring(production, Desired(both, {VERSION: 90, OTHER: 10}, VERSION))
    kill_supervisord(config)
    assert production.observe().weights == {VERSION: 90, OTHER: 10}
    with pytest.raises(EndpointSilent, match="supervisord"):
        production.apply(Desired(both[:1], {VERSION: 100}))
    seen = production.observe()
    assert seen.weights == {VERSION: 100}
    assert set(seen.servers) == {VERSION, OTHER}, "nobody can stop a server now"
    start_endpoints(config)
    until_only_the_first_serves(production, both[0])


def until_only_the_first_serves(production, release):
    seen = bring(production, Desired((release,), {release.version: 100}), limit_s=60)
    assert set(seen.servers) == {release.version}
