"""Every error that this project raises on purpose.

    ArrCocError
    ├── ConfigError      a setting is wrong, missing or unknown
    ├── PortTaken        another process listens where a server of ours should
    ├── DataError        a data set is missing, damaged or not the pinned version
    ├── JobFailed        a program of model/ ended with an error; carries its exit code
    ├── GateFailed       a trained version may not be registered
    ├── Refused          retraining is not allowed now (cooldown, budget)
    ├── NotFound         no such object in the store
    ├── AlreadyExists    the object is there; nothing was written
    ├── StoreError       the store could not be read or written (no room, no right)
    ├── LedgerError      the chain of records is broken or a record is damaged
    ├── ReleaseError     a release is not what its manifest says
    ├── EndpointError    the endpoint refuses an order that it could never carry out
    ├── EndpointSilent   the endpoint does not answer: that blames no version
    ├── Unsupported      this place cannot do what was asked
    ├── Busy             another rollout holds the endpoint
    └── RolledBack       a rollout was rolled back; stable serves all traffic again

A message says what was found, what was expected, what holds now and what to do.
"""


class ArrCocError(Exception):
    """The root. Give the four parts by keyword; empty ones are left out of the message."""

    def __init__(
        self, found: str, *, expected: str = "", holds: str = "", do: str = ""
    ) -> None:
        parts = [found]
        if expected:
            parts.append(f"expected {expected}")
        if holds:
            parts.append(holds)
        if do:
            parts.append(f"to do: {do}")
        super().__init__("; ".join(parts))


class ConfigError(ArrCocError): ...


class PortTaken(ArrCocError): ...


class DataError(ArrCocError): ...


class JobFailed(ArrCocError):
    """`exit_code` is the program's own; negative for a signal, as in subprocess."""

    def __init__(self, found: str, *, exit_code: int = 1, **parts: str) -> None:
        super().__init__(found, **parts)
        self.exit_code = exit_code


class GateFailed(ArrCocError): ...


class Refused(ArrCocError): ...


class NotFound(ArrCocError): ...


class AlreadyExists(ArrCocError): ...


class StoreError(ArrCocError): ...


class LedgerError(ArrCocError): ...


class ReleaseError(ArrCocError): ...


class EndpointError(ArrCocError): ...


class EndpointSilent(ArrCocError): ...


class Unsupported(ArrCocError): ...


class Busy(ArrCocError): ...


class RolledBack(ArrCocError): ...
