"""What a program says: exit codes, last words, and progress at a bearable rate."""

import errno
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.program import console
from model.program.console import FASTEST_S, LOOK_S, SLOWEST_S, Progress, explain
from model.program.errors import BadInput, Diverged, ModelError, Stopped


def records(capsys):
    return [json.loads(line)["progress"] for line in capsys.readouterr().out.splitlines()]


def test_a_thousand_updates_are_a_few_lines_and_the_last_one_is_among_them(capsys):
    started = time.monotonic()
    with Progress("train", 1000) as progress:
        for done in range(1, 1001):
            progress.update(done, loss=0.5)
    said = records(capsys)
    assert len(said) <= 4 + (time.monotonic() - started) / FASTEST_S
    assert said[-1] == {"phase": "train", "done": 1000, "of": 1000, "loss": 0.5}


def test_a_long_step_is_not_taken_for_a_dead_program(capsys):
    """At least every two seconds; how late a busy machine wakes the thread is not ours."""
    assert SLOWEST_S + LOOK_S <= 2
    with Progress("train", 10) as progress:
        progress.update(3)
        repeated, deadline = [], time.monotonic() + 60
        while len(repeated) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            repeated += [one for one in records(capsys) if one["done"] == 3]
    assert len(repeated) >= 2


def test_after_an_error_nothing_more_is_said(capsys):
    with pytest.raises(ValueError, match="broken"), Progress("train", 10):
        raise ValueError("broken")
    said = len(records(capsys))
    time.sleep(2)
    assert said == 1
    assert not records(capsys)


def test_a_real_failed_allocation_is_explained():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(10**15)
    known = explain(failed.value)
    assert isinstance(known, BadInput)
    assert "lower model.batch_images" in str(known)


class Refusing(io.StringIO):
    """A stream that takes nothing, as on a full disk."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.asked = fault, 0

    def write(self, text):
        self.asked += 1
        raise self.fault


CLOSED = ValueError("I/O operation on closed file")


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "no room"), BlockingIOError(), CLOSED])
def test_progress_that_cannot_be_written_does_not_end_the_work(monkeypatch, fault):
    stream = Refusing(fault)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("train", 2) as progress:
        progress.update(2)
        console.log("half-way")
    assert stream.asked >= 3


def test_a_closed_standard_output_does_not_end_the_work(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with Progress("train", 2) as progress:
        progress.update(2)


def test_a_reader_that_is_gone_ends_the_work(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Refusing(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        Progress("train", 2)


PRINTING = """
import sys
from model.program import console
def work():
    with console.Progress("train", 1) as progress:
        progress.update(1)
sys.exit(console.guarded(work))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_below_the_log_does_not_change_the_exit_code():
    with Path("/dev/full").open("w") as full:
        code = subprocess.run(
            [sys.executable, "-c", PRINTING], stdout=full, stderr=full
        ).returncode
    assert code == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_explained_with_the_file(code):
    known = explain(OSError(code, "no room", "weights.safetensors"))
    assert isinstance(known, BadInput)
    assert "no room left to write weights.safetensors" in str(known)


@pytest.mark.parametrize("fault", [OSError(errno.EACCES, "denied"), RuntimeError("a bug")])
def test_a_fault_of_the_program_stays_one(fault):
    assert explain(fault) is None

    def main() -> None:
        raise fault

    with pytest.raises(type(fault)):
        console.run(main, [], arguments=[])


@pytest.mark.parametrize(
    ("kind", "code"), [(ModelError, 1), (BadInput, 2), (Diverged, 3), (Stopped, 75)]
)
def test_each_error_is_an_exit_code_and_a_last_line(kind, code, capsys):
    def main() -> None:
        raise kind("it broke", expected="better", do="mend it")

    assert console.run(main, [], arguments=[]) == code
    assert capsys.readouterr().err == "error: it broke; expected better; to do: mend it\n"
