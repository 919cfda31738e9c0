"""Reading along with a run: a server that restarts ends neither the run nor the reading."""

from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from flows import __main__ as terminal
from flows.terminal.watch import heading, lines, parsed
from policy.errors import Unsupported

RUN, ASK = uuid4(), httpx.Request("GET", "http://127.0.0.1:4200/api")
AWAY = httpx.ConnectError("connection refused")


def status(code):
    reply = httpx.Response(code, request=ASK)
    return PrefectHTTPStatusError("it says no", request=ASK, response=reply)


class Client:
    """A server with one run; each question takes the next of its answers, the last for ever."""

    api_url = "http://127.0.0.1:4200/api"

    def __init__(self, *answers):
        self.answers = [*answers]

    def read_flow_run(self, _id):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return FlowRun(flow_id=RUN, state=answer)

    def read_flow_runs(self, **_):
        return []

    def read_logs(self, *_, **__):
        return []


def read(*answers, patience_s=60.0):
    return [*lines(Client(*answers), RUN, every_s=0, patience_s=patience_s)]


def test_the_run_s_name_and_page_come_first():
    run = FlowRun(flow_id=RUN, name="brave-owl")
    with temporary_settings({PREFECT_API_URL: Client.api_url}):
        page = f"http://127.0.0.1:4200/runs/flow-run/{run.id}"
        assert heading(run) == f"run brave-owl  {page}"


def test_a_server_that_restarts_is_waited_for():
    told = read(Running(), AWAY, AWAY, status(503), Running(), Completed())
    assert len(told) == 3
    assert all("no answer from Prefect's server" in line for line in told)


def test_a_server_that_stays_away_ends_the_reading_and_not_the_run():
    with pytest.raises(Unsupported, match=f"the run {RUN} goes on; to do: make status"):
        read(Running(), AWAY, patience_s=0)


def test_a_server_that_refuses_is_not_asked_again():
    with pytest.raises(Unsupported, match="it says no"):
        read(Running(), status(401))


@pytest.mark.parametrize("given", ["seed", "=7"])
def test_a_parameter_without_name_or_value_is_refused(given, capsys):
    assert terminal.main(["watch", "retrain/on-demand", "--param", given]) == 1
    assert "has no name or no value; expected NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "value"),
    [("seed=7", 7), ("why=a wish", "a wish"), ("version=2026.11.22-1e5", "2026.11.22-1e5"),
     ("why=", ""), ("why=a=b", "a=b"), ("seeds=[1, 2]", [1, 2])],
)  # fmt: skip
def test_a_parameter_is_json_or_else_text(given, value):
    assert [*parsed([given]).values()] == [value]
