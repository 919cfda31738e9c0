"""One retraining at a time, by a lock that dies with its holder."""

import subprocess
import sys
import threading

from tasks import training

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_retraining_waits_for_another_and_goes_on_when_that_is_killed(world, monkeypatch):
    monkeypatch.setattr(training, "_TURN_S", 0.05)
    path = world.place.scratch / "retraining.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=training.wait_for_turn.fn, args=(world.config,))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive(), "it overtook"
        other.kill()
    waiting.join(10)
    assert not waiting.is_alive()
    training._TURNS.pop(path).close()
