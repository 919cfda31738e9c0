"""Starting a deployment's run and reading along in a terminal until it ends."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
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
from prefect.utilities.urls import url_for

from deployments import console
from policy.config import Config, load_config
from policy.errors import ConfigError, NotFound, Unsupported
from tasks.server import reached

PATIENCE_S = 600.0  # a restart takes seconds, a repair by a person minutes

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


def show(config: Config, deployment: str, given: Sequence[str] = ()) -> int:
    """Run a deployment and read along; 0 if it completed.

    Args:
        given: parameters as NAME=VALUE; the others are the deployment's own.
    """
    ended = run_and_follow(config, deployment, parsed(given))
    state = ended.state.name if ended.state else "unknown"
    console.say(f"{deployment}: {state}")
    return 0 if ended.state and ended.state.is_completed() else 1


def run_and_follow(config: Config, deployment: str, parameters: Mapping[str, Any]) -> FlowRun:
    """Run a deployment, print what it says while it works, and return the ended run.

    A server that is away for minutes, as at a restart, is waited for: the run goes on.

    Raises:
        NotFound: naming the deployments that there are.
        Unsupported: if no server answers, or none for long.
    """
    with reached(config), get_client(sync_client=True) as client:
        known = _deployment(client, deployment)
        started = client.create_flow_run_from_deployment(
            known.id, parameters={**parameters}, idempotency_key=uuid4().hex
        )
        console.say(heading(started))
        for line in lines(client, started.id):
            console.say(f"    {line}")
        return client.read_flow_run(started.id)


def heading(run: FlowRun) -> str:
    """A run's name and its page in the UI, if Prefect knows where that is."""
    return f"run {run.name}  {url_for('flow-run', run.id) or ''}".rstrip()


def lines(
    client: SyncPrefectClient, run: UUID, every_s: float = 1.0, patience_s: float = PATIENCE_S
) -> Iterator[str]:
    """The log lines of a run and of its subflows, as they come, until the run has ended.

    Raises Unsupported if the server refuses, or does not answer for `patience_s`.
    """
    told: set[UUID] = set()
    ended_looks, heard = 0, time.monotonic()
    while ended_looks < 3:  # the last lines arrive a little after the end
        try:
            state = client.read_flow_run(run).state
            found = [*_logs(client, _family(client, run))]
        except httpx.HTTPError as error:
            if not _may_pass(error) or time.monotonic() - heard > patience_s:
                raise _lost(client, run, error) from error
            yield f"{datetime.now():%H:%M:%S}  no answer from Prefect's server; asked again"
        else:
            heard = time.monotonic()
            ended_looks += state is not None and state.is_final()
            for log in found:
                if log.id not in told and not log.message.startswith(NOISE):
                    first = log.message.splitlines()[0]
                    yield f"{log.timestamp.astimezone():%H:%M:%S}  {first}"
                told.add(log.id)
        time.sleep(every_s)


def _may_pass(error: httpx.HTTPError) -> bool:
    """Whether the same question may be answered later."""
    refused = isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error
    return not refused


def _lost(client: SyncPrefectClient, run: UUID, error: Exception) -> Unsupported:
    return Unsupported(
        f"the Prefect server at {client.api_url} does not tell how the run is: {error!r}",
        holds=f"the run {run} goes on",
        do="make status tells what is down, make up repairs it, make history tells its end",
    )


def parsed(given: Sequence[str]) -> dict[str, Any]:
    """The parameters of a run, from NAME=VALUE each. Raises ConfigError."""
    return dict(map(_parameter, given))


def _parameter(given: str) -> tuple[str, Any]:
    """NAME=VALUE as a person types it: VALUE is JSON, or else text."""
    name, found, value = given.partition("=")
    if not (name and found):
        raise ConfigError(
            f"the parameter {given!r} has no name or no value",
            expected="NAME=VALUE, such as seed=7",
            holds="nothing was started",
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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
    local = "deployments/local.yaml"
    name, file = console.arguments(
        "flows.terminal.watch", str(__doc__), "deployment", config=local
    )
    sys.exit(console.exit_code_of(lambda: show(load_config(Path(file)), name)))
