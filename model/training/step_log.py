"""A log of all steps done, which tells how much work a restart lost: `steps.log` in the output.

A line is a step that was done (`7`), or where a restart went on and how many steps it lost
(`from 5 lost 2`; `lost ?` where the log did not survive, as on a new machine).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "steps.log"
_DONE, _RESUME = re.compile(r"\d+"), re.compile(r"from (\d+) lost (\d+|\?)")


@dataclass(frozen=True)
class Resume:
    """The step of the checkpoint, and how many steps after it were done and lost."""

    step: int
    lost: int | None

    @property
    def message(self) -> str:
        if self.lost is None:
            return f"resumed from step {self.step}; how many steps are repeated is unknown"
        return f"resumed from step {self.step}; steps repeated: {self.lost}"


class StepLog:
    """Appends to the log of one output folder."""

    def __init__(self, output: Path) -> None:
        self._path = output / NAME
        self.resumes: list[Resume] = []

    def start(self, step: int, known: Sequence[Resume]) -> Resume | None:
        """Training starts after `step`; returns the resume, or None if there is none.

        Args:
            known: the resumes that the checkpoint tells of, for a log that did not survive.
        """
        log = self._path.read_text() if self._path.is_file() else ""
        earlier, reached = _read(log)
        self.resumes = earlier if log else list(known)
        if not log:
            self._append("".join(map(_line, self.resumes)))
        if not step and not reached and not self.resumes:
            return None
        lost = max(0, reached - step) if reached is not None else None
        self.resumes.append(Resume(step, lost))
        torn = "" if log.endswith("\n") or not log else "\n"
        self._append(torn + _line(self.resumes[-1]))
        return self.resumes[-1]

    def done(self, step: int) -> None:
        self._append(f"{step}\n")

    def _append(self, text: str) -> None:
        with self._path.open("a") as file:
            file.write(text)


def _line(resume: Resume) -> str:
    return f"from {resume.step} lost {'?' if resume.lost is None else resume.lost}\n"


def _read(log: str) -> tuple[list[Resume], int | None]:
    """The resumes, and the last step done; None if the log does not say."""
    resumes: list[Resume] = []
    reached = None
    for line in log.splitlines():
        if found := _RESUME.fullmatch(line):
            lost = None if found[2] == "?" else int(found[2])
            resumes.append(Resume(int(found[1]), lost))
            reached = resumes[-1].step
        elif _DONE.fullmatch(line):
            reached = int(line)
    return resumes, reached
