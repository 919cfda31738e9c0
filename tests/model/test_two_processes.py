"""Two processes train what one trains, and survive the loss of either."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from model.program.files import sha256_hex


def curve(folder):
    with (folder / "curves.csv").open() as file:
        return [
            (row["split"], row["step"], float(row["loss"] or 0)) for row in csv.DictReader(file)
        ]


def weights(folder):
    return sha256_hex((folder / "weights.safetensors").read_bytes())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_torchrun(rank, port):
    """What torchrun tells each of two processes."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def test_two_processes_have_the_losses_of_one(programs, small_data, train_config, tmp_path):
    config = train_config(model__batch_images=5, checkpointing__every_s=1e6)
    one, two, port = tmp_path / "one", tmp_path / "two", free_port()
    assert programs.run("train", config, data=small_data, output=one).end() == 0
    ranks = [
        programs.start(
            "train", config, data=small_data, output=two, environment=as_torchrun(rank, port)
        )
        for rank in range(2)
    ]
    assert [rank.end() for rank in ranks] == [0, 0], ranks[0].text + ranks[1].text
    assert not ranks[1].progress  # one voice
    for (split, step, loss), (split_2, step_2, loss_2) in zip(
        curve(one), curve(two), strict=True
    ):
        assert (split, step) == (split_2, step_2)
        assert loss_2 == pytest.approx(loss, rel=1e-5)


def program(config, small_data, output):
    command = [sys.executable, "-m", "model.train", f"--config={config}"]
    return subprocess.Popen(
        [*command, f"--data={small_data}", f"--output={output}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ranks_of(process):
    return [
        p for p in psutil.Process(process.pid).children(recursive=True) if "RANK" in environ(p)
    ]


def environ(process):
    try:
        return process.environ()
    except psutil.Error:
        return {}


def wait_for_step(process, step):
    for line in process.stdout:
        if '"train"' in line and f'"done": {step}' in line:
            return
    raise AssertionError("ended before that step")


def hears_sigterm(process):
    assert process.poll() is None
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1


@pytest.fixture
def long_config(train_config, tmp_path):
    path = tmp_path / "config.json"
    chosen = train_config(
        compute__processes=2, model__steps_max=120, model__batch_images=8,
        checkpointing__every_s=0.1,
    )  # fmt: skip
    path.write_text(json.dumps(chosen))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "launcher", "everything"])
def test_killed_with_9_two_processes_reach_the_same_end(
    long_config, small_data, tmp_path, victim
):
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "trained"
    assert program(long_config, small_data, undisturbed).wait(120) == 0
    process = program(long_config, small_data, output)
    wait_for_step(process, 4)
    ranks = sorted(ranks_of(process), key=lambda p: environ(p)["RANK"])
    if victim == "everything":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        {"rank 0": ranks[0], "rank 1": ranks[1], "launcher": process}[victim].kill()
    code = process.wait(60)
    assert code == (1 if victim.startswith("rank") else -signal.SIGKILL)
    assert not psutil.wait_procs(ranks, timeout=10)[1], "a rank outlived its launcher"
    assert not (output / "training.json").exists()
    again = program(long_config, small_data, output)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0, out
    assert weights(output) == weights(undisturbed)


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_exits_with_75(long_config, small_data, tmp_path):
    output = tmp_path / "trained"
    process = program(long_config, small_data, output)
    wait_for_step(process, 4)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 75, rest
    assert list((output / "checkpoints").glob("step-*.ckpt"))


def test_what_two_processes_tell_each_other_leaves_this_machine_by_no_door(
    long_config, small_data, tmp_path
):
    """A store that listens everywhere and unpickles once ran a stranger's code as the owner."""
    process = program(long_config, small_data, tmp_path / "trained")
    wait_for_step(process, 4)
    ranks = [psutil.Process(process.pid), *ranks_of(process)]
    open_to = {
        connection.laddr.ip
        for one in ranks
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    named = [environ(one).get("MASTER_PORT") for one in ranks]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert len(ranks) == 3
    assert open_to <= {"127.0.0.1", "::1"}
    assert named == [None] * 3, "no store in memory: they meet at a file"


def test_sigterm_while_the_libraries_are_loaded_exits_with_75_too(
    long_config, small_data, tmp_path
):
    process = program(long_config, small_data, tmp_path / "trained")
    while not hears_sigterm(process):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.splitlines()[-1].startswith("error: stopped by SIGTERM")


@pytest.mark.slow
def test_bad_input_keeps_its_exit_code(long_config, tmp_path):
    process = program(long_config, tmp_path / "no data", tmp_path / "trained")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2, out
    assert "no data set at" in out
