"""What the reconciler does besides driving: each part by itself, whatever else fails."""

import logging
import sys
import time
from dataclasses import replace

import pytest

from deployments.ledger_head import last_seen
from tasks.reconciler import TELL_AFTER_S, Rounds, keep_driving
from tests.local.fixtures import free_row

GOOD = "2026.11.22-aaaaaaa"


@pytest.fixture
def rounds(world, tmp_path):
    """Rounds beside a Prefect server that does not answer; telling people leaves a file."""
    world.record["local"]["prefect_port"] = free_row(1)
    world.write()
    world.told = tmp_path / "told"
    code = f"open({str(world.told)!r}, 'a').write('told ')"
    return Rounds(world.config, world.place, [sys.executable, "-c", code])


def told(world, wait_s=10.0):
    deadline = time.monotonic() + wait_s
    while not world.told.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return world.told.exists()


def test_people_are_told_though_prefects_server_does_not_answer(world, rounds, caplog):
    caplog.set_level(logging.INFO)
    world.serve(GOOD)
    rounds.once()
    assert not told(world, wait_s=1)  # whoever drove is about to do it
    world.place.clock.sleep(TELL_AFTER_S + 1)
    rounds.once()
    assert told(world)
    away = [line for line in caplog.messages if "runs whose process is gone" in line]
    assert len(away) == 1  # said once, not at every round


def test_one_telling_at_a_time(world, rounds):
    world.serve(GOOD)
    world.place.clock.sleep(TELL_AFTER_S + 1)
    for _ in range(3):
        rounds.once()
    assert told(world)
    time.sleep(0.5)
    assert world.told.read_text() == "told "


def test_a_ledger_that_was_mended_is_read_again(world, rounds, caplog):
    caplog.set_level(logging.INFO)
    world.serve(GOOD)
    rounds.once()
    last = max((world.root / "ledger").glob("*.json"))
    good = last.read_bytes()
    last.write_bytes(good.replace(b'"by"', b'"By"'))
    rounds.once()
    assert any(line.startswith("the ledger: ") for line in caplog.messages)
    last.write_bytes(good)
    world.place.clock.sleep(TELL_AFTER_S + 1)
    rounds.once()
    assert told(world)


def test_what_the_reconciler_has_seen_of_the_ledger_is_kept_for_those_who_look(world, rounds):
    world.serve(GOOD)
    rounds.once()
    number, root = world.ledger.number, world.place.store.root
    assert last_seen(world.place.scratch, root) == number > 1
    assert last_seen(world.place.scratch, "another store") == 0
    (world.root / f"ledger/{number:08d}.json").unlink()
    rounds.once()  # who has read more refuses this ledger
    rounds.once()  # who has not, reads it
    assert last_seen(world.place.scratch, root) == number


class Faulty:
    """An endpoint of a place with a fault of ours in it."""

    name, can = "production", frozenset()

    def observe(self):
        raise ZeroDivisionError("a fault of ours")


class Stop:
    """Told to stop after the second attempt."""

    attempts = 0

    def is_set(self):
        return self.attempts >= 2

    def wait(self, _seconds):
        self.attempts += 1


def test_a_fault_while_driving_does_not_end_the_driving(world, caplog):
    world.serve(GOOD)
    world.place.clock.sleep(60)
    place = replace(world.place, endpoints={"production": Faulty()})
    keep_driving(world.config, place, "production", Stop())
    assert caplog.text.count("ZeroDivisionError: a fault of ours") == 2
