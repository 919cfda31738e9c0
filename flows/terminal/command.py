"""Commands to the rollout under way from a terminal."""

from policy.config import Config


def give(config: Config, command: str, endpoint: str, by: str, why: str) -> int:
    """Write `command` into the ledger and say what holds now. Raises Refused."""
    from deployments import command as commands
    from deployments import connect

    rollout = commands.give(connect(config).store, endpoint, command, by, why)
    print(f"{rollout.version} on {endpoint}: {rollout.phase}: {rollout.reason}")
    return 0
