"""What a generated picture is asked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """`picture` counts within the chunk; `box` is x0, y0, x1, y1 of what is asked about.

    `answer_box` is that of what the answer is about, where the data set tells; -1 if unknown.
    """

    picture: int
    text: str
    answer: str
    family: str
    box: tuple[int, int, int, int]
    answer_box: tuple[int, int, int, int] | None = None
