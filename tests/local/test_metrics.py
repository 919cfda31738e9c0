"""What Prometheus is told, read by its official parser."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployments import Desired, ledger
from deployments.local import loopback
from deployments.local.layout import layout_of
from deployments.local.stack.life import start_programs
from deployments.local.supervisor.programs import Supervisor
from deployments.local.supervisor.sections import Program
from deployments.store import open_store
from policy.evidence.comparison import decides_at
from policy.records import RolloutChanged
from policy.rollout.machine import abort, approve
from policy.rollout.record import Phase
from tests.local import fixtures
from tests.local.fixtures import bring
from tests.policy.worlds import Behaviour, begin, make_plan, run, until, world

ONE, TWO = "2026.11.22-1111111", "2026.11.22-2222222"
PROGRAM = "metrics"
WHO, WHY = "somebody-private", "a reason of theirs"


@pytest.fixture(scope="module")
def told(endpoints, place, production, make_release):
    """A ledger of three rollouts, two versions at 70 and 30 %, and the program beside them."""
    write(endpoints, "production", run(world(), begin()))
    write(endpoints, "production", run(world(Behaviour(errors=0.5)), begin()))
    waiting = until(Phase.AWAITING_APPROVAL, world(), make_plan(approval=True))
    write(endpoints, "production", [waiting])
    start_programs(endpoints, [exporter(endpoints)])
    pair = make_release(ONE), make_release(TWO, fails_every=3)
    bring(production, Desired(pair, {ONE: 70, TWO: 30}, ONE))
    for _ in range(60):
        assert production.ask(None, [{"question": "what colour?"}]).status == 200
    time.sleep(1.3)
    fixtures.until(partial(loopback.answers, endpoints.local.metrics_port, "/metrics"))
    return endpoints


def exporter(config):
    file = layout_of(config).supervisor / "metrics.json"
    file.write_text(config.model_dump_json())
    port = str(config.local.metrics_port)
    return Program(
        name=PROGRAM,
        command=[
            sys.executable,
            "-m",
            "deployments.metrics.exporter",
            str(file),
            "--port",
            port,
        ],
        environment={},
        folder=Path.cwd(),
    )


def write(config, endpoint, records):
    for rollout in records:
        event = RolloutChanged(rollout=rollout)
        ledger.append(open_store(config.root), lambda _state, event=event: event, by=WHO)


def scrape(config):
    """Every sample by its name and labels, through the official parser."""
    with loopback.client(config.local.metrics_port) as client:
        reply = client.get("/metrics", timeout=20)
    assert reply.status_code == 200
    families = list(text_string_to_metric_families(reply.text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_endpoint_is_told_as_its_data_plane_has_it(told, place):
    samples = scrape(told)
    for endpoint in ("staging", "production"):
        assert samples["arr_coc_endpoint_up", endpoint] == 1
    for version, weight in ((ONE, 0.7), (TWO, 0.3)):
        counts = place.telemetry.read("production", [version]).samples[version].counts
        of = (version, "production")
        assert samples["arr_coc_endpoint_weight_ratio", *of] == weight
        assert samples["arr_coc_endpoint_ready", *of] == 1
        assert samples["arr_coc_endpoint_requests_total", *of] == counts.requests > 0
        assert samples["arr_coc_endpoint_request_errors_total", *of] == counts.errors
        buckets = [samples["arr_coc_endpoint_request_seconds_bucket", *sorted((*of, edge))]
                   for edge in ("0.001", "0.05", "10.0", "+Inf")]  # fmt: skip
        assert buckets == sorted(buckets)
        assert buckets[-1] == sum(counts.latency)
    assert samples["arr_coc_endpoint_request_errors_total", TWO, "production"] > 0


def test_the_rollout_is_told_as_the_ledger_has_it(told):
    samples, state = scrape(told), ledger.read(open_store(told.root))
    rollout = state.endpoint("production").rollout
    of = ("production", "v2")
    assert samples["arr_coc_ledger_up",] == 1
    assert samples["arr_coc_ledger_records_total",] == state.number
    assert samples["arr_coc_ledger_head_info", state.head] == 1
    phases = {phase: samples["arr_coc_rollout_phase", *sorted((*of, phase))] for phase in Phase}
    assert phases == {phase: float(phase is Phase.AWAITING_APPROVAL) for phase in Phase}
    assert samples["arr_coc_rollout_step", *of] == rollout.step == 1
    assert samples["arr_coc_rollout_weight_ratio", "production", "v1"] == 0.5
    assert samples["arr_coc_rollout_weight_ratio", *of] == 0.5
    assert samples["arr_coc_rollout_state_deadline_seconds", *of] == 300
    since = (ledger.now() - rollout.entered_at).total_seconds()
    assert samples["arr_coc_rollout_state_seconds", *of] == pytest.approx(since, abs=10)
    for metric, line in decides_at(rollout.plan).items():
        labels = sorted((*of, metric, "rollback"))
        bet = getattr(rollout.evidence, metric)
        assert samples["arr_coc_rollout_log_evidence", *labels] == pytest.approx(bet.worse)
        assert samples["arr_coc_rollout_log_evidence_threshold", *labels] == line
    assert samples["arr_coc_rollouts_total", "production", "promoted"] == 1
    assert samples["arr_coc_rollouts_total", "production", "rolled-back"] == 1
    rollbacks = {
        key[1:]: value for key, value in samples.items()
        if key[0] == "arr_coc_rollout_rollbacks_total" and value
    }  # fmt: skip
    assert list(rollbacks.values()) == [1.0]
    assert {*rollbacks} <= {("comparison", "production"), ("limit", "production")}
    assert samples["arr_coc_rollout_verdicts_total", "pass", "production"] >= 4
    assert samples["arr_coc_rollout_verdicts_total", "fail", "production"] >= 1
    assert samples["arr_coc_rollouts_total", "promoted", "staging"] == 0


def test_what_is_written_next_is_told_at_the_next_scrape(told):
    rollout = ledger.read(open_store(told.root)).endpoint("production").rollout
    for after, phase in (
        (approve(rollout, WHO, WHY, ledger.now()), Phase.STEP),
        (abort(rollout, WHO, WHY, ledger.now()), Phase.ROLLING_BACK),
    ):
        write(told, "production", [after])
        assert scrape(told)["arr_coc_rollout_phase", *sorted(("production", "v2", phase))] == 1


def test_nobody_and_no_reason_is_told(told):
    with loopback.client(told.local.metrics_port) as client:
        text = client.get("/metrics").text
    records = (r.model_dump_json() for r in ledger.records(open_store(told.root)))
    assert any(WHY in record for record in records)
    assert WHO not in text
    assert WHY not in text
    assert "a test" not in text  # who began the rollouts


def test_only_this_machine_is_answered_and_a_death_costs_one_scrape(told):
    supervisor = Supervisor(layout_of(told))
    process = next(p for p in supervisor.processes() if p.program == PROGRAM)
    listening = [c.laddr for c in psutil.Process(process.pid).net_connections()
                 if c.status == psutil.CONN_LISTEN]  # fmt: skip
    assert [tuple(address) for address in listening] == [("127.0.0.1", told.local.metrics_port)]
    before = scrape(told)["arr_coc_rollouts_total", "production", "promoted"]
    os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    fixtures.until(partial(loopback.answers, told.local.metrics_port, "/metrics"))
    assert scrape(told)["arr_coc_rollouts_total", "production", "promoted"] == before


def test_what_is_away_is_left_out_and_said_so(told):
    supervisor = Supervisor(layout_of(told))
    envoy = next(p for p in supervisor.processes() if p.program == "envoy-staging")
    number = ledger.read(open_store(told.root)).number + 1
    extra = Path(told.root) / "ledger" / f"{number:08}.json"
    extra.write_text("{}")
    psutil.Process(envoy.pid).suspend()
    try:
        samples = scrape(told)
    finally:
        psutil.Process(envoy.pid).resume()
        extra.unlink()
    assert samples["arr_coc_endpoint_up", "staging"] == 0
    assert samples["arr_coc_endpoint_up", "production"] == 1
    assert samples["arr_coc_ledger_up",] == 0
    assert not [key for key in samples if key[0].startswith("arr_coc_rollout")]
    assert scrape(told)["arr_coc_ledger_up",] == 1
