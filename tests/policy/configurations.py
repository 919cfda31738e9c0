"""Configurations made from the one that ships, with settings changed."""

import json
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
LOCAL = REPOSITORY / "deployments/local.yaml"
IMAGE = f"europe-docker.pkg.dev/my-project/arr-coc/model@sha256:{'a' * 64}"
GCP = {
    "project": "my-project",
    "region": "europe-west4",
    "service_account": "trainer@my-project.iam.gserviceaccount.com",
    "image": IMAGE,
}
KUBERNETES = {
    "context": "",
    "namespace": "arr-coc",
    "service_account": "arr-coc",
    "image": IMAGE,
    "gateway": "public",
    "region": "eu-central-1",
}
STAGING = {"role": "staging", "plan": "at-once", "replicas": 1}
PRODUCTION = {"role": "production", "plan": "rollout", "replicas": 2}


def changed(**settings):
    """local.yaml with settings replaced (`section__name`); a value of None takes one out."""
    record = yaml.safe_load(LOCAL.read_text())
    for path, value in settings.items():
        *sections, last = path.split("__")
        place = record
        for name in sections:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return json.dumps(record)  # JSON is YAML, and keeps the order of the endpoints


def changed_one(path, value):
    return changed(**{path.replace(".", "__"): value})


def elsewhere(place, **settings):
    """A configuration of another place."""
    section = {"gcp": GCP, "kubernetes": KUBERNETES}[place]
    root = {"gcp": "gs://my-bucket/arr-coc", "kubernetes": "s3://my-bucket/arr-coc"}[place]
    key = {"private_key": "environment", "trusted": ["-----BEGIN PUBLIC KEY-----\nMCow\n"]}
    there = {"place": place, place: section, "root": root, "signing": key, "local": None}
    return changed(**(there | settings))
