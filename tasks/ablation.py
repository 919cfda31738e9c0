"""Training without one part of the model, to see what that part is for."""

import statistics
from collections.abc import Mapping, Sequence

from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture
from pydantic import BaseModel

from policy.config import Config, with_model
from policy.gates.scores import Scores
from tasks.places import place_of
from tasks.release import read_scores
from tasks.reports.pictures import ablation_dots
from tasks.retries import once, remote
from tasks.training import evaluate, run_of, train

COSTS = 0.05  # a family that loses more than this needs the part


class Measured(BaseModel, frozen=True):
    """One training: accuracies by family and over `all`; `failure` if there is none."""

    ablation: str
    seed: int
    accuracies: Mapping[str, float]
    failure: str = ""


@once
def measure(config: Config, ablation: str, seed: int, data: str) -> Measured:
    """Train and score one ablation with one seed; nothing is registered."""
    parameters = {**config.model.hyperparameters, "ablation": ablation}
    variant = with_model(config, hyperparameters=parameters)
    run = run_of(variant, seed, "ablations", "hand", "an ablation")
    trained = train.fn(variant, run, data)
    scored = evaluate.fn(variant, data, trained, run.uri("scores"))
    scores = read_scores(place_of(config).store.download(scored))
    return Measured(ablation=ablation, seed=seed, accuracies=_accuracies(scores))


def on_one_core(config: Config, steps_max: int | None) -> Config:
    """Each training gets one process of one thread, so that several run side by side."""
    compute = config.compute.model_copy(update={"processes": 1, "threads": 1})
    return with_model(config, steps_max=steps_max).model_copy(update={"compute": compute})


def ended(future: PrefectFuture[Measured], ablation: str, seed: int) -> Measured:
    """The result of one training once it has ended, or why there is none."""
    future.wait()
    if future.state.is_completed():
        return future.result()
    why = future.state.message or str(future.state.type)
    return Measured(ablation=ablation, seed=seed, accuracies={}, failure=why)


@remote
def ablation_report(measured: Sequence[Measured], baseline: str) -> None:
    """Publish the table and the picture in the Prefect UI."""
    done = [one for one in measured if not one.failure]
    points = [(one.ablation, one.accuracies) for one in done]
    picture = ablation_dots(points) if points else ""
    create_markdown_artifact(
        key="ablations", markdown=f"{picture}\n\n{table(measured, baseline)}"
    )


def table(measured: Sequence[Measured], baseline: str) -> str:
    """Mean and spread over the seeds for each ablation, and what each one costs."""
    names = list(dict.fromkeys(one.ablation for one in measured))
    columns = sorted({name for one in measured for name in one.accuracies}, key=_all_first)
    base = _of(measured, baseline)
    lines = [
        "| " + " | ".join(["ablation", "seeds", *columns, "costs"]) + " |",
        "| " + " | ".join(["---"] * (len(columns) + 3)) + " |",
    ]
    for name in names:
        those = _of(measured, name)
        cells = [_spread([one.accuracies[column] for one in those]) for column in columns]
        row = [name, str(len(those)), *cells, _costs(those, base)]
        lines.append("| " + " | ".join(row) + " |")
    failed = [one for one in measured if one.failure]
    told = [f"- {one.ablation}, seed {one.seed} failed: {one.failure}" for one in failed]
    return "\n".join([*lines, "", *told])


def _of(measured: Sequence[Measured], ablation: str) -> list[Measured]:
    return [one for one in measured if one.ablation == ablation and not one.failure]


def _costs(those: Sequence[Measured], base: Sequence[Measured]) -> str:
    """The families whose mean falls by more than COSTS against the baseline."""
    if not those or not base:
        return "–"
    falls = {
        family: _mean(base, family) - _mean(those, family)
        for family in base[0].accuracies
        if family != "all"
    }
    lost = [f"{family} −{fall:.2f}" for family, fall in falls.items() if fall > COSTS]
    return ", ".join(lost) or "none"


def _mean(those: Sequence[Measured], family: str) -> float:
    return statistics.fmean(one.accuracies[family] for one in those)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    width = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{width}"


def _accuracies(scores: Scores) -> dict[str, float]:
    return {"all": scores.accuracy, **{name: f.accuracy for name, f in scores.families.items()}}


def _all_first(name: str) -> tuple[bool, str]:
    return name != "all", name
