"""What supervisord is told of each program."""

import configparser
from pathlib import Path

import pytest

from deployments.local.stack.orchestrator import WORKER, environment, prefect_programs
from deployments.local.supervisor.sections import Program, program_section
from deployments.releases.keys import VARIABLE
from policy.config import load_config
from policy.errors import ConfigError

LOCAL = Path(__file__).parents[2] / "deployments/local.yaml"


def section(program: Program) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.read_string(program_section(program, Path("/logs")))
    return parser[f"program:{program.name}"]


def test_only_the_worker_is_told_the_private_key():
    """supervisord hands its own environment on; an empty value hides the key in it."""
    programs = prefect_programs(load_config(LOCAL))
    told = [p.name for p in programs if f'{VARIABLE}=""' not in section(p)["environment"]]
    assert told == [WORKER]


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_stands_between_prefect_and_this_machine(monkeypatch, name):
    for known in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, "intranet,127.0.0.1")
    config = load_config(LOCAL)
    for told in (environment(config), *(p.environment for p in prefect_programs(config))):
        assert told["NO_PROXY"] == told["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_each_port_is_a_process():
    several = Program("model", ["serve"], {"PORT": "{port}"}, Path("/here"), ports=[81, 82])
    found = section(several)
    assert (found["numprocs"], found["numprocs_start"]) == ("2", "81")
    assert 'PORT="%(process_num)d"' in found["environment"]


@pytest.mark.parametrize("value", ['say "this"', "it's", "two\nlines"])
def test_a_value_that_would_end_its_quotes_is_refused(value):
    with pytest.raises(ConfigError, match="MARK"):
        program_section(Program("a", ["b"], {"MARK": value}, Path("/here")), Path("/logs"))
