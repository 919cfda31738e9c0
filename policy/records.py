"""The records of the ledger, of today and of every day before.

Each record says the version of its schema. Records are read for ever: `_LIFTS` has one step
from each version to the next, over plain JSON. A change of a record's shape is a new version,
a new step, and a folder of records as they were under tests/policy/records/.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from policy.errors import LedgerError
from policy.rollout.record import Rollout
from policy.rollout.requests import Answer

SCHEMA_VERSION = 2
_TOLD_MAX = 500  # characters


class Registered(BaseModel, frozen=True, extra="forbid"):
    """A version passed its gate and its release is in the store."""

    kind: Literal["registered"] = "registered"
    version: str
    digest: str
    accuracy: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    families: Mapping[str, float]
    reasons: tuple[str, ...]
    lineage: Mapping[str, str]
    signed_by: str = ""
    """Fingerprint of the key; empty in records of before, whose releases serve no more."""


class RolloutChanged(BaseModel, frozen=True, extra="forbid"):
    """A rollout entered a new state, before that state was acted on."""

    kind: Literal["rollout"] = "rollout"
    rollout: Rollout


class RetrainingStarted(BaseModel, frozen=True, extra="forbid"):
    """A retraining was permitted and began; `key` stands for its inputs."""

    kind: Literal["retraining"] = "retraining"
    key: str
    cause: str
    why: str


class Requested(BaseModel, frozen=True, extra="forbid"):
    """Somebody asked for something; `rollout` is what that changed at once, if anything."""

    kind: Literal["requested"] = "requested"
    answer: Answer
    rollout: Rollout | None


class Decided(BaseModel, frozen=True, extra="forbid"):
    """A request that waited was decided without a rollout of its own."""

    kind: Literal["decided"] = "decided"
    answer: Answer


class Told(BaseModel, frozen=True, extra="forbid"):
    """People were told about `what` (see policy.ledger.Untold) by one channel; "": by all."""

    kind: Literal["told"] = "told"
    what: str
    channel: str


class Snapshotted(BaseModel, frozen=True, extra="forbid"):
    """The state after record `number` lies in the store under this SHA-256.

    `version` is that of the state's shape: another program may write the same state otherwise.
    """

    kind: Literal["snapshot"] = "snapshot"
    version: int
    number: int
    sha256: str


Event = Annotated[
    Registered | RolloutChanged | RetrainingStarted | Requested | Decided | Told | Snapshotted,
    Field(discriminator="kind"),
]


class Record(BaseModel, frozen=True, extra="forbid"):
    """One entry. `by` is a person or a program, `run` the flow run or empty."""

    schema_version: int
    number: int
    previous: str
    at: AwareDatetime
    by: str
    run: str
    event: Event

    def encode(self) -> bytes:
        return self.model_dump_json(indent=1).encode() + b"\n"


def decode(name: str, data: bytes) -> Record:
    """Read one record of any version. Raises LedgerError naming it."""
    if data.startswith(_PRESENT):
        return _validated(name, data)
    try:
        raw = json.loads(data)
        version = raw.get("schema_version", 1)
    except (ValueError, AttributeError, RecursionError) as error:
        raise broken(f"{name} is damaged (it is not a JSON object)") from error
    if not isinstance(version, int):
        raise broken(f"{name} is damaged (schema version {version!r} is not a number)")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{name} has schema version {version}",
            expected=f"at most {SCHEMA_VERSION}, the newest that this program reads",
            holds="nothing was written and traffic is as it was",
            do="update this program to at least the version that wrote the record",
        )
    for step in range(version, SCHEMA_VERSION):
        try:
            raw = _LIFTS[step](raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise broken(f"{name} is damaged ({error!r})") from error
    return _validated(name, json.dumps({**raw, "schema_version": version}).encode())


def cut_short(data: bytes) -> bool:
    """Whether these are the first bytes of a record, as a machine that went off leaves them.

    The last line of a record is a brace alone. Some disks fill what is lost with zeros.
    """
    found = data.rstrip(b"\0")
    begins = found[: len(_BEGINS)] == _BEGINS[: len(found)]
    return begins and b"\n}" not in found


def broken(found: str) -> LedgerError:
    """What a record says may be of any length and hold any sign; what is told of it may not."""
    plain = found if found.isprintable() else ascii(found)[1:-1]
    told = plain if len(plain) <= _TOLD_MAX else plain[:_TOLD_MAX] + "…"
    return LedgerError(
        f"the ledger's chain is broken: {told}",
        expected="numbered records, each with the SHA-256 of the one before",
        holds="nothing was written and traffic is as it was",
        do="restore the record from a copy of the store; never edit records",
    )


_BEGINS = b'{\n "'
_PRESENT = b'{\n "schema_version": %d,' % SCHEMA_VERSION


def _validated(name: str, data: bytes) -> Record:
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise broken(
            f"{name} is damaged ({error.error_count()} wrong fields, first: {where})"
        ) from error


def _from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Rollouts did not say whether they were rollbacks: those began promoted, all at once."""
    rollout = raw["event"].get("rollout")
    if rollout is None:
        return raw
    back = rollout["promote_at_once"] and rollout["plan"]["weights"] == [100]
    event = {**raw["event"], "rollout": {**rollout, "rollback": back}}
    return {**raw, "event": event}


_LIFTS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
