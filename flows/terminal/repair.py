"""Setting aside a record that was cut short, and what to look at then."""

from deployments import connect, ledger
from deployments.console import say
from deployments.ledger_repair import repair
from flows.terminal.problem import Commands
from policy.config import Config
from policy.words import counted


def show(config: Config, file: str) -> int:
    """Repair the ledger, and say what was found. Raises LedgerError if that cannot be done."""
    store = connect(config).store
    found = repair(store)
    state = ledger.read(store)
    records = counted(state.number, "record")
    if found is None:
        say(f"nothing to repair: {records}, head {state.head[:12]}, chain intact")
        return 0
    say(f"{found.name} was cut short after {found.size} bytes")
    say(f"it lies at {store.root}/{found.to} now; nothing was deleted")
    say(f"the ledger has {records}, head {state.head[:12]}, chain intact")
    say(f"what that record said is not known any more; {Commands(file).make('status')}")
    say("tells where the endpoints differ from the ledger, and the reconciler mends that")
    return 0
