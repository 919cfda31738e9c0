import time

import pytest

from deployments.local.endpoint import EnvoyEndpoint

ASK = [{"question": "what colour?"}]


def wait_ready(endpoint: EnvoyEndpoint, version: str, limit_s: float = 20) -> float:
    start = time.monotonic()
    while not endpoint.ready(version):
        assert time.monotonic() - start < limit_s, f"{version} did not get ready"
        time.sleep(0.02)
    return time.monotonic() - start


def test_first(production, make_release):
    assert production.weights() == {}
    assert production.send(None, ASK).status == 503
    one = make_release("2026.11.22-aaa")
    t = time.time()
    production.deploy(one)
    print("deploy", time.time() - t)
    print("ready", wait_ready(production, one.version))
    t = time.time()
    production.set_weights({one.version: 100})
    print("weights", time.time() - t, production.weights())
    assert production.send(None, ASK).version == one.version
    production.deploy(one)
    two = make_release("2026.11.22-bbb")
    t = time.time()
    production.deploy(two)
    print("deploy", time.time() - t)
    print("ready", wait_ready(production, two.version))
    for w in (10, 30, 50, 100):
        t = time.time()
        production.set_weights({one.version: 100 - w, two.version: w}, fallback=one.version)
        print("weights", time.time() - t, production.weights())
    t = time.time()
    production.undeploy(one.version)
    print("undeploy", time.time() - t, production.weights(), production.deployed())
