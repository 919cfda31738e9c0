"""Starting a deployment's run and reading along in a terminal until it ends."""

import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

from httpx import ConnectError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound

from deployments import console
from policy.errors import NotFound, Unsupported

# Prefect's own words about its runs; ours say what happens in them.
NOISE = (
    "Beginning ",
    "Created task run",
    "Executing ",
    "Finished in state",
    "Opening process",
    "Process for flow run",
    "View at",
    "Worker '",
    "Downloading flow",
    "Importing flow",
    "> Running",
    "Flow run '",
    "Running ",
    "Deployment step",
    "All deployment steps",
    "Task run failed with exception",  # the flow tells it once more
    "Engine execution exited",
)


def show(deployment: str) -> int:
    """Run a deployment with its own parameters and read along; 0 if it completed."""
    ended = run_and_follow(deployment, {})
    return 0 if ended.state and ended.state.is_completed() else 1


def run_and_follow(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Run a deployment, print what it says while it works, and return the ended run.

    Raises NotFound naming the deployments that there are, Unsupported if no server answers.
    """
    with get_client(sync_client=True) as client:
        known = _deployment(client, deployment)
        started = client.create_flow_run_from_deployment(known.id, parameters=parameters)
        for line in lines(client, started.id):
            console.say(f"    {line}")
        return client.read_flow_run(started.id)


def lines(client: SyncPrefectClient, run: UUID, every_s: float = 1.0) -> Iterator[str]:
    """The log lines of a run and of its subflows, as they come, until the run has ended."""
    told: set[UUID] = set()
    ended_looks = 0
    while ended_looks < 3:  # the last lines arrive a little after the end
        state = client.read_flow_run(run).state
        ended_looks += state is not None and state.is_final()
        for log in _logs(client, _family(client, run)):
            if log.id not in told and not log.message.startswith(NOISE):
                yield f"{log.timestamp.astimezone():%H:%M:%S}  {log.message.splitlines()[0]}"
            told.add(log.id)
        time.sleep(every_s)


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError) as error:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        known = sorted(f"{flows.get(d.flow_id)}/{d.name}" for d in client.read_deployments())
        raise NotFound(
            f"there is no deployment {name!r}",
            expected=f"one of {', '.join(known) or 'none yet: make up registers them'}",
            holds="nothing was started",
        ) from error
    except ConnectError as error:
        raise Unsupported(
            f"no Prefect server answers at {client.api_url}", do="make up"
        ) from error


def _family(client: SyncPrefectClient, run: UUID) -> list[UUID]:
    """The run and all its subflows."""
    family, new = [run], [run]
    while new:
        children = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=new)
            )
        )
        new = [child.id for child in children if child.id not in family]
        family += new
    return family


def _logs(client: SyncPrefectClient, runs: list[UUID]) -> Iterator[Log]:
    """All log lines of `runs` in order, page by page."""
    wanted, page, size = LogFilter(flow_run_id=LogFilterFlowRunId(any_=runs)), 0, 200
    while True:
        found = client.read_logs(
            wanted, limit=size, offset=page * size, sort=LogSort.TIMESTAMP_ASC
        )
        yield from found
        if len(found) < size:
            return
        page += 1


if __name__ == "__main__":
    deployment = console.arguments("flows.terminal.watch", str(__doc__), "deployment")[0]
    sys.exit(console.exit_code_of(partial(show, deployment)))
