"""What a program says: exit codes, last words, and progress at a bearable rate."""

import errno
import json
import time

import pytest
import torch

from model import console
from model.console import Progress, explain
from model.errors import BadInput, Diverged, ModelError, Stopped


def records(capsys):
    return [json.loads(line)["progress"] for line in capsys.readouterr().out.splitlines()]


def test_a_thousand_updates_are_a_few_lines_and_the_last_one_is_among_them(capsys):
    with Progress("train", 1000) as progress:
        for done in range(1, 1001):
            progress.update(done, loss=0.5)
    said = records(capsys)
    assert len(said) <= 4
    assert said[-1] == {"phase": "train", "done": 1000, "of": 1000, "loss": 0.5}


def test_a_long_step_is_not_taken_for_a_dead_program(capsys):
    with Progress("train", 10) as progress:
        progress.update(3)
        time.sleep(3.2)
    assert len(records(capsys)) >= 4  # at least every two seconds


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
