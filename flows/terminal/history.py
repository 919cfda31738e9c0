"""Who asked for what and why, and what came of it: the ledger, read aloud."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deployments import connect, ledger
from deployments.console import Progress, say
from flows.terminal.ledger_look import require_there
from flows.terminal.walks import rollout_of
from policy.config import Config
from policy.errors import LedgerError
from policy.records import Decided, Record, Registered, Requested, RetrainingStarted
from policy.rollout.record import Phase, Rollout
from policy.rollout.requests import Answer, Request, settle
from policy.words import counted, one_line

TOLD = {
    Phase.PENDING: "rollout began",
    Phase.DONE: "promoted",
    Phase.ROLLING_BACK: "rolling back",
    Phase.ROLLED_BACK: "rolled back",
    Phase.AWAITING_APPROVAL: "waits for approval",
}
ASKED = {
    "rollout": "to roll out {version} to",
    "rollback": "for the version before on",
    "abort": "to abort the rollout on",
    "promote": "for all traffic at once on",
    "pause": "to pause the rollout on",
    "resume": "to resume the rollout on",
    "approve": "to approve the rollout on",
    "reject": "to reject the rollout on",
}
SPOKEN = ("approved by ", "promoted at once by ", "paused by ", "resumed by ")
"""How the reasons of people's words began when they were no records of their own."""


def show(config: Config, *, as_json: bool) -> int:
    """Print the decisions in the order in which they were made, and audit the chain.

    Raises LedgerError if the chain is broken or records are gone, after what could be told.
    """
    store = connect(config).store
    found = _with_progress(ledger.records(store))
    if as_json:
        require_there(ledger.read(store), store)
        say(json.dumps([json.loads(record.model_dump_json()) for record in found]))
        return 0
    story = Story()
    try:
        for record in found:
            story.add(record)
    except LedgerError:
        _print(story)
        raise
    _print(story)
    state = ledger.audit(store)
    require_there(state, store)
    if not state.number:
        say("no records yet")
        return 0
    say(f"{counted(state.number, 'record')}, head {state.head[:12]}, chain intact")
    return 0


def tell(records: Iterable[Record]) -> list[str]:
    """One line for each decision; what only moves a rollout along is left out."""
    story = Story()
    for record in records:
        story.add(record)
    return list(story.lines())


@dataclass
class _Line:
    """`asked`: the id of the request, or the key of the retraining, that it tells; "" for
    anything else. `open`: what came of it so far.
    """

    text: str
    asked: str = ""
    open: str = "not decided yet"


class Story:
    """The lines so far; that of a request ends with its outcome, which comes later."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._last: dict[str, Rollout] = {}
        self._open: dict[str, Answer] = {}
        self._outcomes: dict[str, str] = {}

    def add(self, record: Record) -> None:
        text, asked, so_far = self._told(record), "", "not decided yet"
        match record.event:
            case RetrainingStarted(key=key):
                asked, so_far = key, "no version registered so far"
            case Registered(version=version, lineage=lineage) if "key" in lineage:
                self._outcomes[lineage["key"]] = f"registered as {version}"
            case Requested(answer=answer):
                asked = answer.request.id
                self._decide(answer)
            case Decided(answer=answer):
                self._decide(answer)
        if text:
            at = f"{record.number:4d}  {record.at:%Y-%m-%d %H:%M:%S}"
            self._lines.append(_Line(f"{at}  {one_line(text)}", asked, so_far))
        rollout = rollout_of(record)
        if rollout is not None:
            self._last[rollout.endpoint] = rollout
            self._settle(rollout)

    def lines(self) -> Iterator[str]:
        for line in self._lines:
            outcome = self._outcomes.get(line.asked, line.open)
            yield f"{line.text} -> {one_line(outcome)}" if line.asked else line.text

    def _told(self, record: Record) -> str:
        match record.event:
            case Registered(version=version, accuracy=accuracy, signed_by=key):
                signed = f"signed by {key[:12]}" if key else "not signed"
                scored = f"accuracy {accuracy:.3f}, {signed}"
                return f"{version}  registered by {record.by}: {scored}"
            case RetrainingStarted() as event:
                return f"retraining {event.key} started ({event.cause}): {event.why}"
            case Requested(answer=answer):
                return _asked(answer.request)
        rollout = rollout_of(record)
        return _rollout(rollout, self._last.get(rollout.endpoint)) if rollout else ""

    def _decide(self, answer: Answer) -> None:
        id = answer.request.id
        if answer.decided:
            self._open.pop(id, None)
            self._outcomes[id] = outcome(answer)
        else:
            self._open[id] = answer

    def _settle(self, rollout: Rollout) -> None:
        """Requests that wait for this rollout, or made it begin, end with it."""
        for answer in list(self._open.values()):
            if rollout.id == answer.rollout or rollout.request == answer.request.id:
                self._decide(settle(answer, rollout))


def outcome(answer: Answer) -> str:
    """What came of a request that is decided."""
    came = "came true" if answer.came_true else "did not come true"
    return f"{came}: {answer.reason}" if answer.reason else came


def _asked(request: Request) -> str:
    for_what = ASKED[request.kind].format(version=request.version)
    return f"{request.by} asked {for_what} {request.endpoint}: {request.why}"


def _rollout(rollout: Rollout, before: Rollout | None) -> str:
    """A decision, or a person's word of old; empty for what only moves it along."""
    entered = before is None or (before.id, before.phase) != (rollout.id, rollout.phase)
    on = f"on {rollout.endpoint}: {rollout.reason}"
    if entered and rollout.phase in TOLD:
        return f"{rollout.version}  {TOLD[rollout.phase]} {on}"
    new = before is None or before.reason != rollout.reason
    spoken = new and rollout.reason.startswith(SPOKEN)
    return f"{rollout.version}  a person's word {on}" if spoken else ""


def _print(story: Story) -> None:
    for line in story.lines():
        say(line)


def _with_progress(records: Iterable[Record]) -> Iterator[Record]:
    progress = Progress()
    for record in records:
        progress.tell(f"reading record {record.number} …")
        yield record
