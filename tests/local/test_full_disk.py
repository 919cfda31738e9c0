"""A disk that is full, for real: what gives stable its traffic needs no room on it."""

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from deployments import ledger, local
from deployments.files import SPARE, is_full
from deployments.local.layout import layout_of
from deployments.local.stack import life as stack
from deployments.local.stack.upkeep import keep_up
from deployments.local.supervisor import launch
from deployments.local.supervisor.programs import Supervisor
from policy.errors import EndpointError, StoreError
from policy.rollout.record import Phase
from tasks.reconciler import keep_driving
from tests.benchmarks.rollout_trials import SERVER, trials
from tests.local.fixtures import configured, maker, serve, start_endpoints, until
from tests.local.living import processes
from tests.local.load import load

MOUNT, UNMOUNT = shutil.which("mount") or "mount", shutil.which("umount") or "umount"


@pytest.fixture(scope="module")
def disk():
    """A small disk of its own, on which whatever makes a temporary folder now makes it."""
    folder = Path(tempfile.mkdtemp(prefix="arr"))
    small = ("-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(folder))
    mounted = subprocess.run([MOUNT, *small], capture_output=True, check=False)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("only root may mount a small disk")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        subprocess.run([UNMOUNT, "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def full(disk):
    """Not one byte is free while this lasts."""
    filler = disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while os.write(file.fileno(), bytes(4096)):
            pass
    try:
        assert shutil.disk_usage(disk).free == 0
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def live(disk):
    slow = {"weights": (50, 100), "bake_s": 4.0, "replay_per_s": 50}
    patient = {"watch__s": 5.0, "deadlines__deploying_s": 60.0}
    with trials(**slow, **patient) as made:
        yield made


@contextmanager
def reconciling(live):
    """Somebody who is always there, as the stack's reconciler is."""
    stop = threading.Event()
    arguments = (live.config, live.place, "production", stop)
    thread = threading.Thread(target=keep_driving, args=arguments)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


@pytest.fixture
def canary(live):
    """A version that has half of the traffic, watched by a reconciler."""
    keep_up(live.config)  # as the stack does
    with reconciling(live):
        version = live.register({})
        live.ask("rollout", version)
        until(lambda: live.weights().get(version) == 50, 60)
        yield version


def test_stable_gets_all_traffic_and_the_rollout_goes_on_once_there_is_room(disk, live, canary):
    stable = live.now().stable
    (live.root / SPARE).unlink()
    with load(live.endpoint.url, threads=2, pause_s=0.02) as seen:
        with full(disk):
            until(lambda: live.weights() == {stable: 100}, 60)
            with pytest.raises(StoreError, match="No space left"):
                live.ask("rollback")
        until(lambda: live.now().unfinished is None, 200)
    assert seen.failed == 0, seen.answers
    assert live.now().stable == canary, live.now().rollout.reason
    ledger.audit(live.store)


def test_an_abort_on_a_full_disk_is_written_into_the_room_that_was_kept(disk, live, canary):
    stable = live.now().stable
    with full(disk):
        live.ask("rollback")
        until(lambda: live.weights() == {stable: 100}, 30)
        until(lambda: live.now().rollout.phase is Phase.ROLLED_BACK, 30)
    ledger.audit(live.store)
    keep_up(live.config)
    assert (live.root / SPARE).stat().st_size > 2**20


@pytest.fixture
def serving(disk):
    """Serves one version; no reconciler, no Prefect."""
    root = Path(tempfile.mkdtemp(prefix="arr"))
    config = configured(root)
    try:
        start_endpoints(config)
        production = local.connect(config, server=SERVER).endpoint("production")
        serve(production, maker(root)("v1"))
        yield config, production
    finally:
        Supervisor(layout_of(config)).shutdown()
        shutil.rmtree(root)


def up(config):
    stack.up(config, lambda line: None, file=Path("a/file.yaml"), deployments=False)


@pytest.mark.slow
def test_up_on_a_full_disk_keeps_alive_what_served_and_says_what_is_wrong(disk, serving):
    config, production = serving
    with full(disk), load(production.url) as seen:
        daemon = int((layout_of(config).supervisor / "supervisord.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(daemon))
        with pytest.raises(EndpointError, match=r"is full: .*kept alive as it was.*make room"):
            up(config)
        assert Supervisor(layout_of(config)).running()
        before = processes(config, SERVER)
        os.kill(dead := min(before), signal.SIGKILL)
        until(lambda: dead not in (now := processes(config, SERVER)) and len(now) == 2, 30)
        assert len(before & processes(config, SERVER)) == 1
    assert seen.failed == 0, seen.answers


@pytest.mark.slow
def test_down_needs_no_room(disk, serving):
    config, _ = serving
    with full(disk):
        stack.down(config, lambda line: None)
        assert not processes(config)


@pytest.mark.slow
def test_a_first_up_on_a_full_disk_says_so_at_once(disk):
    root = Path(tempfile.mkdtemp(prefix="arr"))
    with full(disk), pytest.raises(EndpointError, match=r"is full: .*nothing was started"):
        up(configured(root))


def test_a_long_log_is_shortened_though_there_is_no_room_for_a_copy(disk, serving):
    config, _ = serving
    log = next(layout_of(config).logs.glob("model-*.log"))
    with log.open("ab") as file:
        file.write(bytes(launch.LOG_BYTES_MAX))
    with full(disk):
        assert keep_up(config) == [f"{log} was long: its first part is in {log}.1"]
        assert log.stat().st_size == 0


def test_what_is_full_is_known_by_its_cause():
    error = StoreError("not written")
    assert not is_full(error)
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full(error)
    assert not is_full(FileNotFoundError(errno.ENOENT, "gone"))
