"""The controller: look, decide, write, apply. What to decide is in policy/rollout/.

It holds nothing between two looks, so that it may die anywhere, run twice, or find that
somebody wrote a request in between. Flows call `drive` until their own request is decided;
the reconciler calls it for whatever nobody drives. On one machine one of them looks and the
others read along: the system frees the lock of one that dies.
"""

from collections.abc import Callable

from deployments import Place, ledger
from policy.ledger import Ledger
from tasks.rollout.driver import Driver, Replay, Say

RECONCILER = "reconciler"  # who stands in records of looks that no flow made


def drive(
    place: Place,
    endpoint: str,
    until: Callable[[Ledger], bool],
    *,
    by: str,
    run: str = "",
    say: Say | None = None,
    replay: Replay | None = None,
    between: Callable[[Ledger], None] | None = None,
) -> Ledger:
    """Look at `endpoint` again and again until `until` holds for the ledger's state.

    Args:
        by, run: who stands in the records that looks write.
        say: is told each new state of a rollout, one line each.
        replay: sends held-out questions while its context lasts.
        between: is called after every look.

    Raises:
        LedgerError, StoreError: if the ledger cannot be read or written. Stable was given all
            traffic, as far as the endpoint answered.
    """
    driver = Driver(place, endpoint, by, run, say, replay)
    try:
        state = ledger.read(place.store)
        while not until(state):
            driver.tell(state)
            state, pause_s = driver.look(state)
            if between is not None:
                between(state)
            place.clock.sleep(pause_s)
            state = ledger.read(place.store, state)
        driver.tell(state)
        return driver.settle(state)
    except Exception as error:  # whatever it is: nobody can watch a canary now
        driver.fail_safe_to_stable(error)
        raise
    finally:
        driver.close()
