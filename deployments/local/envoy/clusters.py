"""Who can answer: each version's servers, and the ways that requests take to them (CDS)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from deployments.local.envoy.configuration import (
    HEALTH_ROUTE,
    MARKS,
    TYPES,
    Json,
    Server,
    discovery,
    mirror_name,
    own_socket,
    split_name,
    stat_name,
    typed,
)

# Without a budget of its own the default breaker (3 retries at once) fails requests exactly
# when a server dies under load.
_RETRIES = {"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 50}}
_BUDGET = {"thresholds": [_RETRIES]}
# Requests that name a version come with a priority of their own. However many somebody sends,
# few are with its servers at once: the others would stand before those of the split.
_PINS_MAX = 16
_PINS = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _PINS_MAX)
_WITH_PINS = {"thresholds": [_RETRIES, {"priority": "HIGH", **_PINS}]}


def clusters(servers: Sequence[Server], gone: Collection[str] = ()) -> Json:
    """All servers, and every way that the split or a mirror may lead to them, as a CDS file.

    The ways are there whether a split names them or not. One that went with its split would
    fail the requests that are just waiting for their next attempt: Envoy looks the cluster up
    again and answers 503 by itself. So those of versions that are `gone` stay as long as a
    request may last, with what is left of them.
    """
    own = [_cluster(server) for server in servers]
    versions = sorted({*gone, *(server.version for server in servers)})
    pairs = [(version, other) for version in versions for other in versions if version != other]
    alone = [_way(split_name(version, ""), version, "split") for version in versions]
    paired = [_way(split_name(*pair), pair[0], "split", pair[1]) for pair in pairs]
    copies = [_way(mirror_name(version), version, "mirror") for version in versions]
    return discovery([*own, *alone, *paired, *copies])


def versions_in(discovery: Mapping[str, Any]) -> frozenset[str]:
    """Every version that a CDS file names, in a server or in a way to one."""
    names = (resource["name"].split("/") for resource in discovery["resources"])
    return frozenset(part for parts in names for part in parts if part)


def _cluster(server: Server) -> Json:
    cluster = {
        "name": server.version,
        "alt_stat_name": stat_name(server.version),
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": server.version,
            "endpoints": [{"lb_endpoints": [_host(server, path) for path in server.sockets]}],
            # One healthy server takes all that the split gives its version. By default Envoy
            # would send 30 % to the fallback when one of two is down.
            "policy": {"overprovisioning_factor": 100 * len(server.sockets)},
        },
        # Never send to a server that is known to be down because too many others are too.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": _WITH_PINS,
        "health_checks": [_health_check()],
        "outlier_detection": _outliers(),
    }
    return typed("config.cluster.v3.Cluster", cluster)


def _host(server: Server, socket: str) -> Json:
    marks = {"filter_metadata": {MARKS: {"version": server.version}}}
    return {"endpoint": {"address": own_socket(socket)}, "metadata": marks}


def _way(name: str, version: str, use: str, fallback: str = "") -> Json:
    """To `version`, and to `fallback` where that fails; its marks are what is counted by."""
    kind = f"{TYPES}.extensions.clusters.aggregate.v3.ClusterConfig"
    members = [version, fallback] if fallback else [version]
    cluster = {
        "name": name,
        "alt_stat_name": stat_name(name),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": kind, "clusters": members},
        },
        "circuit_breakers": _BUDGET,
    }
    return typed("config.cluster.v3.Cluster", cluster, {"version": version, "use": use})


def _health_check() -> Json:
    return {
        # A busy machine may leave a good server waiting for seconds; one that is dead refuses
        # the connection at once.
        "timeout": "5s",
        "interval": "1s",
        "unhealthy_interval": "0.25s",
        # The default is a minute before the first request has come: a canary starts idle.
        "no_traffic_interval": "0.25s",
        "no_traffic_healthy_interval": "1s",
        "healthy_threshold": 1,
        "unhealthy_threshold": 2,
        "http_health_check": {"path": HEALTH_ROUTE},
    }


def _outliers() -> Json:
    """Eject a server that cannot be reached, for a moment; never one that answers badly.

    A canary that answers 5xx must go on being measured until the rollout is rolled back;
    the retry already keeps its errors from the clients.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 100,
    }
