"""What serves while files that it needs later are deleted: it is told, and `up` mends it."""

import shutil
import time

import pytest

from deployments import local
from deployments.local import model_servers
from deployments.local.envoy import plane
from deployments.local.envoy.program import endpoint_programs, program_of
from deployments.local.layout import layout_of
from deployments.local.servers import program_name, servers_of
from deployments.local.stack.health import health
from deployments.local.stack.life import start_programs
from deployments.local.stack.serving import refreshed, wait_for_endpoints
from deployments.local.supervisor.programs import Supervisor
from policy.errors import EndpointError, EndpointSilent
from tests.local.fixtures import SERVER, configured, maker, serve, start_endpoints, until
from tests.local.load import load

ONE, TWO = "2026.11.25-aaaaaaa", "2026.11.25-bbbbbbb"


@pytest.fixture(scope="module")
def config(root):
    made = configured(root / "d")
    try:
        start_endpoints(made)
        yield made
    finally:
        Supervisor(layout_of(made)).shutdown()


@pytest.fixture(scope="module")
def production(config):
    return local.connect(config, server=SERVER).endpoint("production")


@pytest.fixture(scope="module")
def one(root, config):
    return maker(root / "d")(ONE)


@pytest.fixture(scope="module")
def two(root, config):
    return maker(root / "d")(TWO)


@pytest.fixture
def layout(config):
    return layout_of(config)


@pytest.fixture
def supervisor(layout):
    return Supervisor(layout)


def up(config):
    """What `up` does for the endpoints, and all that it says."""
    said = []
    start_programs(config, endpoint_programs(config, layout_of(config)))
    wait_for_endpoints(config, said.append)
    return said


def pids(supervisor, program):
    return {p.pid for p in supervisor.processes() if p.program == program}


def problems(config):
    return {part.name: part for part in health(config).parts if part.problem}


# Sockets


@pytest.fixture
def cut_off(production, layout, supervisor, one, monkeypatch):
    """All sockets are deleted; servers are old enough after a few seconds, as those are."""
    serve(production, one)
    monkeypatch.setattr(model_servers, "_LOADS_S", 6)
    until(lambda: min(p.uptime_s for p in supervisor.processes()) > 11, 30)
    for path in layout.sockets.iterdir():
        path.unlink()


@pytest.mark.slow
def test_servers_that_are_cut_off_are_told_and_started_anew_one_by_one(
    production, supervisor, cut_off, config
):
    servers = program_name("production", ONE)
    before, fewest = pids(supervisor, servers), []
    assert len(production.cut_off()) == len(before) == 2
    assert "make up" in problems(config)["endpoint production"].problem
    while production.renew():
        fewest.append(len(pids(supervisor, servers) & before))
        time.sleep(0.1)
    assert fewest[0] == 1  # and the other one waits for the first
    assert len(fewest) > 10
    until(lambda: production.cut_off() == [])
    assert pids(supervisor, servers).isdisjoint(before)
    up(config)
    until(lambda: answering_version(production) == ONE)


@pytest.mark.slow
def test_an_order_mends_servers_that_are_cut_off(
    production, supervisor, layout, cut_off, config
):
    supervisor.restart_program(program_of("production"))  # so that it can be asked
    before = pids(supervisor, program_name("production", ONE))
    until(lambda: layout.admin_socket("production").exists())
    until(lambda: not production.closed())
    assert answering_version(production) == ""
    production.refresh()
    until(lambda: answering_version(production) == ONE)
    production.refresh()
    until(lambda: not refresh_leaves(production), 60)
    assert pids(supervisor, program_name("production", ONE)).isdisjoint(before)
    up(config)


def refresh_leaves(production):
    production.refresh()
    return production.cut_off()


def answering_version(production):
    return production.ask(None, [{"question": "q"}]).version


def test_up_mends_all_deleted_sockets_and_they_outlive_envoy(
    production, supervisor, cut_off, config
):
    said = up(config)
    assert any("servers whose sockets were deleted" in line for line in said)
    assert any("sockets of its Envoy are gone" in line for line in said)
    until(lambda: answering_version(production) == ONE)
    assert dict(production.observe().weights) == {ONE: 100}
    until(lambda: production.cut_off() == [])
    supervisor.restart_program(program_of("production"))
    until(lambda: answering_version(production) == ONE)
    up(config)
    assert "endpoint production" not in problems(config)


@pytest.mark.slow
def test_a_server_that_has_just_begun_is_left_alone(
    production, layout, supervisor, one, monkeypatch
):
    serve(production, one)
    monkeypatch.setattr(model_servers, "_LOADS_S", 10_000)
    [server] = servers_of(supervisor, "production")
    name = program_name("production", ONE)
    before = pids(supervisor, name)
    socket = server.sockets[0]
    shutil.move(socket, f"{socket}.away")
    production.refresh()
    assert (production.cut_off(), pids(supervisor, name)) == ([], before)
    shutil.move(f"{socket}.away", socket)


# What Envoy has in force


def test_a_deleted_folder_is_told_and_written_again_as_it_is_in_force(
    config, production, layout, supervisor, one, two
):
    serve(production, one)
    shutil.rmtree(layout.xds("production"))
    told = problems(config)["endpoint production: files"]
    assert (told.endangers, "make up" in told.problem) == ("rollbacks", True)
    with pytest.raises(EndpointSilent, match="make up"):
        serve(production, two)
    up(config)
    assert "endpoint production: files" not in problems(config)
    until(lambda: answering_version(production) == ONE)
    refreshed(production)
    supervisor.restart_program(program_of("production"))
    until(lambda: answering_version(production) == ONE)
    serve(production, two)  # the new Envoy watches the new folder
    serve(production, one)


@pytest.mark.slow
def test_a_copy_in_the_place_of_the_folder_is_watched_after_up(
    config, production, layout, one, two
):
    serve(production, one)
    xds = layout.xds("production")
    shutil.copytree(xds, xds.with_name("copy"))
    shutil.rmtree(xds)
    xds.with_name("copy").rename(xds)
    up(config)
    until(lambda: answering_version(production) == ONE)
    serve(production, two)
    serve(production, one)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clusters", "routes"])
@pytest.mark.parametrize("text", [None, "", '{"version_info": "0", "resources": []}'])
def test_a_file_that_lacks_what_is_in_force_costs_no_request(
    config, production, layout, one, kind, text, monkeypatch
):
    monkeypatch.setattr(plane, "_SETTLED_S", 0)
    serve(production, one)
    before = pids(Supervisor(layout), program_of("production"))
    path = layout.xds("production") / f"{kind}.json"
    with load(production.url, threads=2, pause_s=0.02) as seen:
        if text is None:
            path.unlink()
        else:
            path.write_text(text)  # in place: Envoy hears of files that are moved there
        assert "endpoint production: files" in problems(config)
        up(config)
        refreshed(production)
        until(lambda: seen.of(ONE) > 50)
    assert seen.failed == 0, seen.answers
    assert pids(Supervisor(layout), program_of("production")) == before
    assert "endpoint production: files" not in problems(config)


def test_what_is_refused_never_leaves_less_than_is_in_force(production, layout, one):
    serve(production, one)
    path = layout.xds("production") / "clusters.json"
    in_force = path.read_text()
    path.write_text('{"version_info": "0", "resources": []}')
    data_plane = production._plane
    bad = {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "",
           "metadata": {"filter_metadata": {"arr-coc": {"content": "bad"}}}}  # fmt: skip
    with pytest.raises(EndpointError, match="Envoy refuses"):
        data_plane.write("clusters", {"version_info": "bad", "resources": [bad]})
    assert len(path.read_text()) > len(in_force) / 2
    assert production.unwritten() == ""
    production.refresh()
    assert path.read_text() == in_force
