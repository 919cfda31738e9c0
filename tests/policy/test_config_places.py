"""Endpoints are walked in order, and a place has its own section and nobody else's."""

import pytest

from policy.config import load_config, parse_config
from policy.errors import ConfigError
from policy.rollout.plans import plan_for, plan_of
from tests.policy.configurations import GCP, LOCAL, PRODUCTION, STAGING, changed, elsewhere


def test_a_release_walks_the_endpoints_in_their_order_and_production_is_last():
    config = load_config(LOCAL)
    assert config.path == ("staging", "production")
    assert config.production == "production"
    assert config.endpoint("staging").replicas == 1
    ports = {"one": {"port": 8081}, "two": {"port": 8082}, "people": {"port": 8080}}
    three = {"two": STAGING, "one": STAGING, "people": PRODUCTION}
    config = parse_config(changed(endpoints=three, local__endpoints=ports), "three.yaml")
    assert (config.path, config.production) == (("two", "one", "people"), "people")


def test_an_endpoint_that_is_not_there_is_an_error_that_names_those_that_are():
    with pytest.raises(ConfigError) as raised:
        load_config(LOCAL).endpoint("prod")
    assert "no endpoint 'prod'" in str(raised.value)
    assert "['staging', 'production']" in str(raised.value)
    assert "nothing was changed" in str(raised.value)


def test_staging_takes_all_at_once_and_production_as_configured():
    config = load_config(LOCAL)
    staging = plan_for(config, "staging")
    assert (staging.weights, staging.watch.s, staging.approval) == ((100,), 0, False)
    assert staging.limits == plan_of(config.rollout).limits
    assert plan_for(config, "production") == plan_of(config.rollout)


@pytest.mark.parametrize("root", ["s3://my-bucket/a/b", "gs://my-bucket", "/data/arr coc", "."])
def test_a_laptop_may_keep_everything_anywhere(root):
    assert parse_config(changed(root=root), "local.yaml").root == root


@pytest.mark.parametrize("place", ["gcp", "kubernetes"])
def test_another_place_has_its_own_section(place):
    config = parse_config(elsewhere(place), f"{place}.yaml")
    there = {"local": config.local, "gcp": config.gcp, "kubernetes": config.kubernetes}
    assert [name for name, section in there.items() if section] == [place]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            changed(gcp=GCP),
            "needs the section 'local' and no other place's; found ['local', 'gcp']",
        ),
        (changed(local=None), "place (=local) needs the section 'local'"),
        (changed(place="gcp", root="gs://my-bucket"), "needs the section 'gcp'"),
        (elsewhere("gcp", root=".arr-coc"), "root (=.arr-coc) must be gs://BUCKET"),
        (elsewhere("gcp", root="s3://my-bucket"), "root (=s3://my-bucket) must be gs://BUCKET"),
        (elsewhere("kubernetes", root="/data"), "root (=/data) must be s3://BUCKET"),
        (elsewhere("gcp", gcp=GCP | {"project": "X"}), "gcp.project (='X')"),
        (elsewhere("gcp", gcp=GCP | {"image": "model:latest"}), "gcp.image (='model:latest')"),
        (elsewhere("gcp", gcp=GCP | {"zone": "a"}), "gcp.zone (='a')"),
        (elsewhere("gcp", signing__private_key="made-here"), "is for place: local only"),
        (changed(root="http://example.org"), "root (='http://example.org') must be a folder"),
        (changed(root="gs://"), "root (='gs://') must be a folder, gs://BUCKET"),
        (changed(root=""), "root (='') must be a folder"),
        (changed(root="a\0b"), r"root (='a\x00b') must be a folder"),
        (changed(scratch=".arr-coc"), "scratch (=.arr-coc) holds root (=.arr-coc)"),
        (changed(scratch="./.arr-coc/"), "and the ledger with it"),
        (changed(scratch="."), "scratch (=.) holds root (=.arr-coc)"),
        (changed(root="a/b", scratch="a"), "scratch (=a) holds root (=a/b)"),
        (changed(scratch="gs://my-bucket"), "scratch (='gs://my-bucket') must be a folder"),
        (changed(endpoints={}), "must have exactly one with the role production, found []"),
        (
            changed(endpoints={"staging": STAGING, "a": PRODUCTION, "production": PRODUCTION}),
            "exactly one with the role production, found ['a', 'production']",
        ),
        (
            changed(endpoints={"production": PRODUCTION, "staging": STAGING}),
            "endpoints.production has the role production and must be the last",
        ),
        (changed(endpoints__staging__role="shadow"), "endpoints.staging.role (='shadow')"),
        (changed(endpoints__Staging=STAGING), "endpoints.Staging (='Staging')"),
        (
            changed(local__endpoints={"production": {"port": 8080}}),
            "local.endpoints has ports for ['production'], but the endpoints are "
            "['production', 'staging']",
        ),
        (
            changed(local__endpoints__staging__port=8080),
            "local.endpoints.production.port (=8080) must differ from endpoints.staging.port",
        ),
        (changed(local__metrics_port=4200), "local.metrics_port (=4200) must differ from"),
        (changed(local__endpoints__staging__port=80), "local.endpoints.staging.port (=80)"),
        (changed(local__model_ports=[8100, 8199]), "local.model_ports"),
        (changed(local__endpoints__staging__admin_port=9901), "staging.admin_port"),
    ],
)
def test_endpoints_and_places_that_do_not_fit_are_refused(text, told):
    with pytest.raises(ConfigError) as raised:
        parse_config(text, "local.yaml")
    assert told in str(raised.value)
    assert "nothing was started" in str(raised.value)
