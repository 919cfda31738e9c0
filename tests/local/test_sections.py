"""What supervisord is told of each program."""

import configparser
from pathlib import Path

import pytest

from deployments.local.layout import Layout
from deployments.local.stack.orchestrator import WORKER, environment, prefect_programs
from deployments.local.supervisor.programs import Process
from deployments.local.supervisor.sections import Program, program_section
from deployments.releases.keys import VARIABLE
from policy.errors import ConfigError
from tests.local.fixtures import configured

LAYOUT = Layout(Path("/scratch"), Path("/home"))


def section(program: Program) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.read_string(program_section(program, LAYOUT))
    return parser[f"program:{program.name}"]


def test_only_the_worker_is_told_the_private_key(tmp_path):
    """supervisord hands its own environment on; an empty value hides the key in it."""
    programs = prefect_programs(configured(tmp_path))
    told = [p.name for p in programs if f'{VARIABLE}=""' not in section(p)["environment"]]
    assert told == [WORKER]


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_stands_between_prefect_and_this_machine(monkeypatch, tmp_path, name):
    for known in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, "intranet,127.0.0.1")
    config = configured(tmp_path)
    for told in (environment(config), *(p.environment for p in prefect_programs(config))):
        assert told["NO_PROXY"] == told["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_each_process_knows_its_number():
    several = Program("model", ["serve"], {"NUMBER": "{number}"}, Path("/here"), processes=2)
    found = section(several)
    assert found["numprocs"] == "2"
    assert 'NUMBER="%(process_num)d"' in found["environment"]


@pytest.mark.parametrize("value", ['say "this"', "it's", "two\nlines"])
def test_a_value_that_would_end_its_quotes_is_refused(value):
    with pytest.raises(ConfigError, match="MARK"):
        program_section(Program("a", ["b"], {"MARK": value}, Path("/here")), LAYOUT)


@pytest.mark.parametrize(
    ("state", "exit_code", "gave_up"),
    [
        ("EXITED", 2, True), ("FATAL", 1, True), ("UNKNOWN", 0, True),
        ("EXITED", 1, False), ("EXITED", -9, False), ("EXITED", 0, False),
        ("BACKOFF", 1, False), ("RUNNING", 0, False), ("STOPPED", 0, False),
    ],
)  # fmt: skip
def test_a_server_that_has_just_died_has_not_given_up(state, exit_code, gave_up):
    """supervisord starts it again; no version is to blame for that moment."""
    found = Process("model", "0", state, 0, 0.0, exit_code, Path("log"))
    assert found.gave_up is gave_up
