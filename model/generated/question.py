"""A question about a generated picture."""

from dataclasses import dataclass

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Question:
    """`picture` counts within the chunk; `box` is x0, y0, x1, y1 of what is asked about.

    `answer_box` is that of what the answer is about, where the data set tells; -1 if unknown.
    `counted` are the boxes of all that the answer counts.
    """

    picture: int
    text: str
    answer: str
    family: str
    box: Box
    answer_box: Box | None = None
    counted: tuple[Box, ...] = ()
