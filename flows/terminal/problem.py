"""One thing that is not well, whom it harms first, and the command that mends it."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments import Endangered

DEFAULT = "deployments/local.yaml"
ORDER: Sequence[Endangered] = ("clients", "rollbacks", "nobody yet")
_DO = "; to do: "
_MAKE = re.compile(r"`?\bmake (up|down|status|history|clean)\b`?")


@dataclass(frozen=True)
class Problem:
    """`do` is a command, as far as there is one that mends it."""

    part: str
    what: str
    do: str
    endangers: Endangered = "nobody yet"


@dataclass(frozen=True)
class Commands:
    """Commands as they are typed for the configuration in `file`."""

    file: str = DEFAULT

    def make(self, target: str) -> str:
        return f"make {target}" + ("" if self._plain else f" CONFIG={shlex.quote(self.file)}")

    def flows(self, *words: str) -> str:
        """`words` as they are typed, quoted where that is needed."""
        own = () if self._plain else (shlex.quote(self.file),)
        return " ".join((".venv/bin/python -m flows", *words, *own))

    def told(self, part: str, text: str, endangers: Endangered) -> Problem:
        """A problem of whose text others have put together what is wrong and what to do."""
        what, _, do = text.removeprefix(f"{part}: ").partition(_DO)
        do = _MAKE.sub(lambda found: self.make(found[1]), do)
        return Problem(part, what, do, endangers)

    @property
    def _plain(self) -> bool:
        return self.file == DEFAULT


def ranked(problems: Iterable[Problem]) -> Sequence[Problem]:
    """What harms clients now first, then what a rollback would meet, then the rest."""
    return sorted(problems, key=lambda problem: ORDER.index(problem.endangers))
