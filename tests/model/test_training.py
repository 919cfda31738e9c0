"""Training that can be killed anywhere and reaches the same end, bit for bit."""

import json
import signal
import time

import pytest
import torch

from model.generated import generator
from model.network import saved_model
from model.program.files import sha256_hex
from model.program.settings import TrainSettings
from model.training.callbacks import CheckpointSaver
from model.training.run import train
from model.training.step_log import Resume, StepLog
from tests.model.runner import Runner


def weights(folder):
    return sha256_hex((folder / "weights.safetensors").read_bytes())


def curves(folder):
    return (folder / "curves.csv").read_text()


def resumed(folder):
    return json.loads((folder / "training.json").read_text())["resumed_from_steps"]


def lost(folder):
    return json.loads((folder / "training.json").read_text())["lost_steps"]


def reached(folder):
    """The last step that the run wrote down."""
    return int((folder / "steps.log").read_text().splitlines()[-1])


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("step-*.ckpt"))


def step(path):
    return int(path.name.split("-")[1])


@pytest.fixture(scope="module")
def through(small_data, train_config, tmp_path_factory):
    """A training that nobody disturbed. Two batches a step; a step may lie in two epochs."""
    runner = Runner(tmp_path_factory.mktemp("through"))
    config, output = train_config(model__accumulate=2), runner.folder / "trained"
    program = runner.run("train", config, data=small_data, output=output)
    assert program.end() == 0, program.text
    return config, output, program


def test_a_finished_training_says_how_it_went(through):
    _, output, program = through
    record = json.loads((output / "training.json").read_text())
    assert record["steps"] == 30
    assert record["resumed_from_steps"] == record["lost_steps"] == []
    assert 0 <= record["validation_accuracy"] <= 1
    assert [p["done"] for p in program.progress] == sorted(p["done"] for p in program.progress)
    assert program.progress[-1] | {"done": 30, "of": 30} == program.progress[-1]


def test_a_finished_training_is_not_repeated(through, programs, small_data):
    config, output, _ = through
    before = (output / "training.json").stat().st_mtime_ns
    assert programs.run("train", config, data=small_data, output=output).end() == 0
    assert (output / "training.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_with_9_it_reaches_the_same_end(
    through, programs, small_data, train_config, tmp_path, workers
):
    _, undisturbed, _ = through
    output = tmp_path / "trained"
    config = train_config(model__accumulate=2, model__hyperparameters__workers=workers)
    programs.end_midway(
        lambda: any(3 <= step(path) < 25 for path in checkpoints(output)),
        "train", config, data=small_data, output=output,
    )  # fmt: skip
    assert not (output / "training.json").exists()
    done, saved = reached(output), step(checkpoints(output)[-1])
    again = programs.run("train", config, data=small_data, output=output)
    assert again.end() == 0, again.text
    assert (resumed(output), lost(output)) == ([saved], [done - saved])
    assert f"resumed from step {saved}; steps repeated: {done - saved}\n" in again.text
    assert curves(output) == curves(undisturbed)
    assert weights(output) == weights(undisturbed)


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(
    through, programs, small_data, tmp_path
):
    config, undisturbed, _ = through
    output = tmp_path / "trained"
    programs.end_midway(
        lambda: len(checkpoints(output)) == 2,
        "train", config, data=small_data, output=output,
    )  # fmt: skip
    done = reached(output)
    before, newest = checkpoints(output)
    newest.write_bytes(newest.read_bytes()[:-100])
    again = programs.run("train", config, data=small_data, output=output)
    assert again.end() == 0, again.text
    assert f"checkpoint {newest.name} is damaged; trying the one before it" in again.text
    assert (resumed(output), lost(output)) == ([step(before)], [done - step(before)])
    assert lost(output) > [0]
    assert weights(output) == weights(undisturbed)


def test_sigterm_saves_and_exits_with_75(through, programs, small_data, train_config, tmp_path):
    _, undisturbed, _ = through
    output = tmp_path / "trained"
    never = train_config(model__accumulate=2, checkpointing__every_s=1e6)
    program = programs.end_midway(
        lambda: since_start(output) >= 3,
        "train", never, data=small_data, output=output, by=signal.SIGTERM,
    )  # fmt: skip
    assert program.last_line.startswith("error: stopped by SIGTERM at step")
    (saved,) = checkpoints(output)
    again = programs.run("train", never, data=small_data, output=output)
    assert again.end() == 0, again.text
    assert (resumed(output), lost(output)) == ([step(saved)], [0])
    assert weights(output) == weights(undisturbed)


def test_killed_again_and_again_it_counts_every_lost_step(
    programs, small_data, train_config, tmp_path
):
    output, reaches = tmp_path / "trained", []
    never = train_config(checkpointing__every_s=1e6, model__steps_max=150)
    for wanted in (3, 5):
        program = programs.start("train", never, data=small_data, output=output)
        program.wait_for(lambda least=wanted: since_start(output) >= least)
        program.kill()
        program.end()
        reaches.append(reached(output))
    assert programs.run("train", never, data=small_data, output=output).end() == 0
    assert (resumed(output), lost(output)) == ([0, 0], reaches)


def since_start(folder):
    """Steps done since the last restart."""
    log = folder / "steps.log"
    lines = log.read_text().splitlines() if log.is_file() else []
    marks = [n for n, line in enumerate(lines) if line.startswith("from")]
    return len(lines) - (marks[-1] + 1 if marks else 0)


@pytest.mark.parametrize(
    ("log", "step", "known", "expected"),
    [
        (None, 0, [], []),
        (None, 120, [], [(120, None)]),
        (None, 120, [Resume(60, 3)], [(60, 3), (120, None)]),
        ("1\n2\n3\n", 0, [], [(0, 3)]),
        ("1\n2\n3\n", 3, [], [(3, 0)]),
        ("1\n2\nfrom 1 lost 1\n2\n3\n", 1, [Resume(9, 9)], [(1, 1), (1, 2)]),
        ("1\n2\nfrom 1 lost 1\n", 1, [], [(1, 1), (1, 0)]),
        ("from 7 lost ?\n8\n9", 8, [], [(7, None), (8, 1)]),
    ],
)
def test_lost_steps_are_told_from_the_run_s_own_log(tmp_path, log, step, known, expected):
    if log is not None:
        (tmp_path / "steps.log").write_text(log)
    steps = StepLog(tmp_path)
    steps.start(step, known)
    assert [(one.step, one.lost) for one in steps.resumes] == expected
    again = StepLog(tmp_path)  # killed at once
    again.start(step, [])
    assert [(one.step, one.lost) for one in again.resumes][: len(expected)] == expected


class Killed(Exception):
    """Stands for a kill at one moment."""


class KilledWhenItStops(CheckpointSaver):
    """Saves after every step; the training is lost right after it decided to stop early."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(f"step-{trainer.global_step:08d}")
        while trainer.strategy.checkpoint_io.busy:
            time.sleep(0.001)
        if trainer.should_stop:
            raise Killed


@pytest.fixture
def in_this_process():
    """Training sets what is global; put it back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    torch.use_deterministic_algorithms(False)
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("in_this_process")
def test_killed_after_it_decided_to_stop_early_it_does_not_train_on(
    small_data, train_config, tmp_path
):
    never_better = {"every_steps": 4, "patience": 1, "min_delta": 1.0}
    chosen = TrainSettings.model_validate(train_config(model__early_stopping=never_better))
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "trained"
    train(chosen, small_data, undisturbed, CheckpointSaver(1e6))
    stop = reached(undisturbed)
    assert stop < 30
    with pytest.raises(Killed):
        train(chosen, small_data, output, KilledWhenItStops(1e6))
    assert step(checkpoints(output)[-1]) == stop
    train(chosen, small_data, output, CheckpointSaver(1e6))
    assert (resumed(output), lost(output)) == ([stop], [0])
    assert weights(output) == weights(undisturbed)
    assert curves(output) == curves(undisturbed)


@pytest.mark.usefixtures("in_this_process")
def test_killed_after_the_last_step_it_still_says_that_it_was_resumed(
    small_data, train_config, tmp_path
):
    class KilledAtTheEnd(KilledWhenItStops):
        def on_train_end(self, trainer, pl_module):
            raise Killed

    chosen = TrainSettings.model_validate(train_config(model__steps_max=3))
    output = tmp_path / "trained"
    with pytest.raises(Killed):
        train(chosen, small_data, output, KilledAtTheEnd(1e6))
    train(chosen, small_data, output, CheckpointSaver(1e6))
    assert (resumed(output), lost(output)) == ([3], [0])


def test_only_the_newest_checkpoints_are_kept(through):
    _, output, _ = through
    assert len(checkpoints(output)) == 2


def test_a_full_disk_is_one_clear_error_and_leaves_whole_checkpoints(
    programs, small_data, train_config, tmp_path
):
    output = tmp_path / "trained"
    few = train_config(model__steps_max=8)
    assert programs.run("train", few, data=small_data, output=output).end() == 0
    size = checkpoints(output)[-1].stat().st_size
    other = tmp_path / "other"
    full = programs.run("train", few, data=small_data, output=other, file_bytes_max=size // 2)
    assert full.end() == 2, full.text
    assert full.last_line.startswith("error: no room left to write")
    assert not [p for p in other.rglob("*") if ".ckpt" in p.name]
    assert not (other / "training.json").exists()
    again = programs.run("train", few, data=small_data, output=other)
    assert again.end() == 0, again.text
    assert weights(other) == weights(output)


def test_a_loss_that_is_not_a_number_stops_with_3(programs, small_data, train_config, tmp_path):
    output = tmp_path / "trained"
    config = train_config(model__learning_rate=1e30, model__gradient_clip=1e30)
    program = programs.run("train", config, data=small_data, output=output)
    assert program.end() == 3, program.text
    assert "expected a finite number" in program.last_line
    assert not (output / "training.json").exists()
    assert not (output / "weights.safetensors").exists()


def test_bf16_learns_as_32_does(programs, small_data, train_config, tmp_path):
    """Weights and what serves stay float32; the losses differ by bf16's rounding."""
    losses = {}
    for precision in ("32", "bf16-mixed"):
        output = tmp_path / precision
        config = train_config(model__precision=precision, model__steps_max=10)
        program = programs.run("train", config, data=small_data, output=output)
        assert program.end() == 0, program.text
        row = next(r for r in (output / "curves.csv").read_text().split() if "train,10" in r)
        losses[precision] = float(row.split(",")[2])
        assert {x.dtype for x in saved_model.load(output).network.parameters()} == {
            torch.float32
        }
    assert losses["bf16-mixed"] != losses["32"]
    assert losses["bf16-mixed"] == pytest.approx(losses["32"], rel=0.05)


@pytest.mark.parametrize(
    ("setting", "value"), [("model__precision", "16-mixed"), ("model__strategy", "fsdp")]
)
def test_what_only_a_gpu_can_is_refused_on_the_cpu(
    programs, small_data, train_config, tmp_path, setting, value
):
    config = train_config(**{setting: value})
    program = programs.run("train", config, data=small_data, output=tmp_path / "trained")
    assert program.end() == 2
    assert f"(={value}) needs compute.accelerators" in program.last_line


def test_another_seed_does_not_go_on_from_these_checkpoints(
    through, programs, small_data, train_config, tmp_path
):
    _, output, _ = through
    place = tmp_path / "trained" / "checkpoints"
    place.mkdir(parents=True)
    newest = checkpoints(output)[-1]
    (place / newest.name).write_bytes(newest.read_bytes())
    config = train_config(model__accumulate=2, seed=2)
    program = programs.run("train", config, data=small_data, output=place.parent)
    assert program.end() == 2
    assert "belongs to another training" in program.last_line


def test_a_glance_is_trained_where_the_answer_s_object_is_told(
    programs, train_config, tmp_path
):
    data, output = tmp_path / "data", tmp_path / "trained"
    generator.generate("generate://sort-of-clevr?images=40&questions=6&seed=3", data)
    config = train_config(model__hyperparameters__glance=True, model__steps_max=8)
    assert programs.run("train", config, data=data, output=output).end() == 0
    assert saved_model.load(output).network.glance is not None
