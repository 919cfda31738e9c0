"""What an evaluation says of a version, and whether it can be believed."""

import math
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from policy.errors import DataError

ROUNDING = 1e-5  # programs round accuracies to six digits


class Score(BaseModel):
    """Mean correctness over a number of questions; `accuracy` is a fraction."""

    model_config = ConfigDict(frozen=True, strict=True)

    questions: int
    accuracy: float


class Scores(BaseModel):
    """What model.evaluate wrote into scores.json; each question belongs to one family."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    data_fingerprint: str
    questions: int
    accuracy: float
    families: Mapping[str, Score]


def parse_scores(text: str, source: str) -> Scores:
    """Read the text of a scores.json; `source` stands in errors. Raises DataError."""
    try:
        return Scores.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise DataError(
            f"{source} holds no scores: {where}: {first['msg']}",
            expected="what model.evaluate writes (model/README.md)",
            holds="nothing was registered",
        ) from error


def doubts(scores: Scores, who: str, fingerprint: str) -> Iterator[str]:
    """Why the scores of `who` cannot be those of the data set with this fingerprint.

    Nothing if they can: fractions of at least one question, families that add up to the
    whole, and the right data.
    """
    if scores.data_fingerprint != fingerprint:
        yield f"{who} was scored on {scores.data_fingerprint}, not {fingerprint}"
    parts = {f"accuracy of {who}": Score(questions=scores.questions, accuracy=scores.accuracy)}
    parts |= {f"accuracy of {who} on {name}": one for name, one in scores.families.items()}
    odd = [reason for what, score in parts.items() for reason in _no_fraction(what, score)]
    yield from odd or _does_not_add_up(scores, who)


def _no_fraction(what: str, score: Score) -> Iterator[str]:
    if score.questions < 1:
        yield f"{what} is over {score.questions} questions, at least 1 is needed"
    if not 0 <= score.accuracy <= 1:  # a NaN as well
        yield f"{what} is {score.accuracy:g}, not a fraction from 0 to 1"


def _does_not_add_up(scores: Scores, who: str) -> Iterator[str]:
    families = scores.families.values()
    if not families:
        yield f"no family of {who} was scored"
        return
    questions = sum(family.questions for family in families)
    if questions != scores.questions:
        yield (
            f"the families of {who} do not add up: {questions} questions, "
            f"{scores.questions} in all"
        )
        return
    mean = math.fsum(one.questions * one.accuracy for one in families) / questions
    if abs(mean - scores.accuracy) > ROUNDING:
        yield (
            f"the families of {who} do not add up: accuracy {100 * mean:.6g} %, "
            f"{100 * scores.accuracy:.6g} % in all"
        )
