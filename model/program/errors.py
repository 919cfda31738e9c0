"""Every error that the programs of model/ raise on purpose; each is an exit code.

ModelError       1   a fault of the program
├── BadInput     2   configuration, data, model or disk: nothing to retry
├── StorageUnavailable  1   checkpoints cannot be written or read now: run it again
├── Diverged     3   the loss is not a number any more
└── Stopped     75   asked to stop, a checkpoint is saved: run it again and it goes on
"""


class ModelError(Exception):
    """The root. Give what was found, what was expected, what holds now and what to do."""

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", now: str = "", do: str = "") -> None:
        parts = [found]
        if expected:
            parts.append(f"expected {expected}")
        if now:
            parts.append(now)
        if do:
            parts.append(f"to do: {do}")
        super().__init__("; ".join(parts))


class BadInput(ModelError):
    exit_code = 2


class StorageUnavailable(ModelError):
    exit_code = 1


class Diverged(ModelError):
    exit_code = 3


class Stopped(ModelError):
    exit_code = 75
