"""Who can answer: each version's servers, and pairs of a version with its fall-back (CDS)."""

from collections.abc import Sequence

from deployments.local.envoy.configuration import (
    HEALTH_ROUTE,
    MARKS,
    TYPES,
    Json,
    Server,
    address,
    discovery,
    pair_name,
    stat_name,
    typed,
)

_BUDGET = {
    # Without a budget of its own the default breaker (3 retries at once) fails requests
    # exactly when a server dies under load.
    "thresholds": [
        {"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 50}}
    ]
}


def clusters(servers: Sequence[Server], left: Sequence[str] = ()) -> Json:
    """All servers, and every pair of versions, as a CDS file; `left` were just undeployed.

    The pairs are there whether a split names them or not. One that went with its split would
    fail the requests that are just waiting for their next attempt: Envoy looks the cluster up
    again and answers 503 by itself. So those of `left` stay until the next version comes,
    with what is left of them.
    """
    own = [_cluster(server) for server in servers]
    versions = sorted({*left, *(server.version for server in servers)})
    pairs = [(version, other) for version in versions for other in versions if version != other]
    return discovery([*own, *(_pair(*pair) for pair in pairs)])


def _cluster(server: Server) -> Json:
    cluster = {
        "name": server.version,
        "alt_stat_name": stat_name(server.version),
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": server.version,
            "endpoints": [{"lb_endpoints": [_host(server, port) for port in server.ports]}],
        },
        # Never send to a server that is known to be down because too many others are too.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": _BUDGET,
        "health_checks": [_health_check()],
        "outlier_detection": _outliers(),
    }
    return typed("config.cluster.v3.Cluster", cluster)


def _host(server: Server, port: int) -> Json:
    marks = {"filter_metadata": {MARKS: {"version": server.version}}}
    return {"endpoint": {"address": address(port)}, "metadata": marks}


def _pair(version: str, fallback: str) -> Json:
    name = pair_name(version, fallback)
    kind = f"{TYPES}.extensions.clusters.aggregate.v3.ClusterConfig"
    cluster = {
        "name": name,
        "alt_stat_name": stat_name(name),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": kind, "clusters": [version, fallback]},
        },
        "circuit_breakers": _BUDGET,
    }
    return typed("config.cluster.v3.Cluster", cluster)


def _health_check() -> Json:
    return {
        "timeout": "2s",
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

    A canary that answers 5xx must go on being measured until the rollout takes it back;
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
