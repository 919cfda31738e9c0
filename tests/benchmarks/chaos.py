"""A bad night, drawn by a seed: kills, full disks, clock jumps and hostile clients under load.

    python -m tests.benchmarks.chaos --minutes 30 --seed 1

A real stack in a folder of its own: Prefect's server and worker, supervisord, the reconciler,
two Envoys, and stand-ins for the model. Good and bad versions are rolled out one after another
the whole time. Held all the time:

    no lost request       of clients that behave; only one whose Envoy was killed by us may
                          fail, for 20 s after that kill at most
    no unwatched canary   for more than 90 s
    the ledger verifies   every record of it, every 10 s
    right end states      good versions are promoted, unless somebody asked otherwise, killed
                          their own servers or filled the disk; bad ones never get 100 %;
                          nobody is judged by latency, for the night itself slows everybody
    a good end            every request decided, status well, nothing left after `down`

Ends with 1 after a breach, and tells what was done before it. The same seed does the same at
the same times; story.jsonl in the run's folder has every line. Full disks need the right to
mount a tmpfs, clock jumps a C compiler on Linux; without them they are
left out, and the run says so.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence

from deployments.local.servers import local_of
from tests.benchmarks.chaos_run import schedule
from tests.benchmarks.chaos_run.actions import Actions
from tests.benchmarks.chaos_run.clients import Clients, Hostile
from tests.benchmarks.chaos_run.rollouts import Rollouts
from tests.benchmarks.chaos_run.story import Story
from tests.benchmarks.chaos_run.watch import Watch
from tests.benchmarks.chaos_run.world import World

BREATH_S = 1.0  # between two actions at least
WELL_S = 150.0  # after the last action, until everything is well again


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="A bad night, drawn by a seed.")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="one of the actions; may be repeated")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the stack ends with the run
    world = World()
    story = Story(world.folder / "story.jsonl")
    _tell_what_is_left_out(world)
    try:
        _night(world, story, asked.seed, 60 * asked.minutes, asked.only)
    finally:
        world.close()
    return _end(world, story, asked.seed)


def _night(
    world: World, story: Story, seed: int, seconds: float, only: Sequence[str] | None
) -> None:
    code, said = world.up(deployments=True)
    if code != 0:
        story.breach("up brings everything up", said[-2_000:])
        return
    port = local_of(world.config).endpoints["production"].port
    clients = Clients(port, story)
    watch = Watch(world, story, clients)
    actions = Actions(world, story, clients, watch.bad)
    rollouts = Rollouts(world, story, watch, actions, seed)
    hostile = Hostile(port, seed, watch.canary)
    rollouts.first()
    parts = (clients, watch, rollouts, hostile)
    for part in parts:
        part.start()
    try:
        _act(actions, story, seed, seconds, only)
    except BaseException:
        for part in parts:  # else they would call the end of the stack a breach
            part.stop()
        raise
    finally:
        actions.close()
    for part in (hostile, rollouts):
        part.stop()
    _require_well(world, story)
    for part in (watch, clients):
        part.stop()
    _require_nothing_left(world, story)
    _sum_up(clients, hostile, watch, rollouts)


def _act(
    actions: Actions, story: Story, seed: int, seconds: float, only: Sequence[str] | None
) -> None:
    """At its time each, or soon after the one before has ended."""
    start_s = story.now_s()
    for action in schedule.actions(seed, seconds):
        if only and action.name not in only:
            continue
        time.sleep(max(BREATH_S, start_s + action.at_s - story.now_s()))
        if story.now_s() > start_s + seconds:
            return
        actions.carry_out(action)


def _require_well(world: World, story: Story) -> None:
    """Nobody does anything any more: `up`, and soon `status` has nothing to tell."""
    code, said = world.up()
    if code != 0:
        story.breach("up brings everything up", said[-2_000:])
    deadline = story.now_s() + WELL_S
    while True:
        code, said = world.run("flows", "status", str(world.file))
        if code == 0:
            return
        if story.now_s() > deadline:
            story.breach("status is well at the end", said[-3_000:])
            return
        time.sleep(3)


def _require_nothing_left(world: World, story: Story) -> None:
    code, said = world.run("deployments.local", "down", str(world.file))
    if code != 0:
        story.breach("down ends everything", said[-2_000:])
    if left := world.left():
        story.breach("nothing is left after down", "; ".join(left))


def _sum_up(clients: Clients, hostile: Hostile, watch: Watch, rollouts: Rollouts) -> None:
    ended = ", ".join(f"{count} {what}" for what, count in sorted(rollouts.ended.items()))
    print(f"rollouts: {ended}")
    print(f"hostile clients: {dict(hostile.acts)}")
    print(
        f"requests: {clients.answers.total()}, {len(clients.lost)} lost, "
        f"{clients.excused_count} while Envoy was dead ({len(clients.excused)} kills), "
        f"slowest {clients.slowest_s:.1f} s"
    )
    print(f"a canary was unwatched for {watch.longest_unwatched_s:.0f} s at most")


def _tell_what_is_left_out(world: World) -> None:
    if not world.small_disk:
        print("full disks are left out: no tmpfs can be mounted here")
    if not world.clock.can_jump:
        print("clock jumps are left out: no C compiler is here")


def _end(world: World, story: Story, seed: int) -> int:
    if not story.breaches:
        print(f"seed {seed}: 0 breaches")
        shutil.rmtree(world.folder, ignore_errors=True)
        return 0
    print(f"seed {seed}: {len(story.breaches)} breaches; the story is in {story.path}")
    for breach in story.breaches:
        print(f"  {breach[:300]}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
