"""Envoy's configuration for one endpoint, as values: servers and a split in, JSON out.

Nothing here reads or writes. The listener stands in the bootstrap and never changes;
clusters (CDS) and routes (RDS) are files that Envoy watches.

    listener  ->  x-arr-version: V   ->  cluster V              pinned, without fall-back
              ->  by weight          ->  cluster V/F = [V, F]   V, and F where V fails
                                     ->  cluster F              the fall-back itself
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policy.counts import LATENCY_EDGES_S

Json = dict[str, Any]  # an Envoy message in its JSON form

MARKS = "arr-coc"  # the namespace of our own metadata on clusters, servers and routes
PIN_HEADER = "x-arr-version"
PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/health"
REQUEST_BYTES_MAX = 16 * 2**20
REQUEST_TIMEOUT_S = 20
_TRY_TIMEOUT_S = 6
EDGES_US = tuple(edge * 1e6 for edge in LATENCY_EDGES_S)
_TYPES = "type.googleapis.com/envoy"
_BUDGET = {
    # Without a budget of its own the default breaker (3 retries at once) fails requests
    # exactly when a server dies under load.
    "thresholds": [
        {"retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 50}}
    ]
}


@dataclass(frozen=True)
class Server:
    """A version with its server processes, one per port."""

    version: str
    digest: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """Percent of the requests per version; `fallback` answers where another one fails.

    `shadow` gets copies of `shadow_percent` of the requests; nobody sees its answers.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    fallback: str = ""
    shadow: str = ""
    shadow_percent: int = 0

    def cluster(self, version: str) -> str:
        if self.fallback in ("", version):
            return version
        return f"{version}/{self.fallback}"

    def without(self, version: str) -> "Split":
        """The split without a version that has no weight in it."""
        shadow = ("", 0) if self.shadow == version else (self.shadow, self.shadow_percent)
        fallback = "" if self.fallback == version else self.fallback
        return Split(self.weights, fallback, *shadow)


def clusters(servers: Sequence[Server], *splits: Split) -> Json:
    """The clusters of all servers and of each split, as a CDS file."""
    pairs = {
        split.cluster(version): (version, split.fallback)
        for split in splits
        for version in split.weights
        if split.cluster(version) != version
    }
    own = [_cluster(server) for server in servers]
    return _discovery([*own, *(_pair(name, pair) for name, pair in sorted(pairs.items()))])


def routes(endpoint: str, servers: Sequence[Server], split: Split) -> Json:
    """Who gets which request, as an RDS file."""
    pinned = [route for server in servers for route in _pinned(server.version)]
    open_ = _weighted(split) if split.weights else _nothing_deployed(endpoint)
    unknown = _answer(
        _matching(PREDICT_ROUTE, "POST", pinned_to=""),
        404,
        f"no such version is deployed at endpoint {endpoint}",
    )
    other = _answer(
        {"match": {"prefix": "/"}},
        404,
        f"only POST {PREDICT_ROUTE} and GET {HEALTH_ROUTE} are served here",
    )
    host = {
        "name": endpoint,
        "domains": ["*"],
        "routes": [*pinned, unknown, *open_, other],
    }
    route = {
        "name": endpoint,
        "virtual_hosts": [host],
        # A route to a cluster that is not there is refused, and the routes before stay.
        "validate_clusters": True,
    }
    return _discovery([_typed("config.route.v3.RouteConfiguration", route)])


def split_of(route: Mapping[str, Any]) -> Split:
    """The split that a RouteConfiguration carries, read back from Envoy."""
    entries = (entry for host in route["virtual_hosts"] for entry in host["routes"])
    for action in (entry.get("route", {}) for entry in entries):
        shares = action.get("weighted_clusters", {}).get("clusters", [])
        if shares:
            pairs = [(*share["name"].split("/"), "")[:2] for share in shares]
            weights = {
                version: int(share["weight"])
                for (version, _), share in zip(pairs, shares, strict=True)
            }
            fallback = next((fallback for _, fallback in pairs if fallback), "")
            return Split(weights, fallback, *_shadow_of(action))
    return Split()


def _shadow_of(action: Mapping[str, Any]) -> tuple[str, int]:
    for policy in action.get("request_mirror_policies", []):
        share = policy["runtime_fraction"]["default_value"]["numerator"]
        return policy["cluster"], int(share)
    return "", 0


def fingerprint(resource: Mapping[str, Any]) -> str:
    """The content mark of a resource; Envoy shows it again in its config_dump."""
    return resource["metadata"]["filter_metadata"][MARKS]["content"]


def stat_name(version: str) -> str:
    """The version's name in Envoy's statistics, where a dot would part the name."""
    return version.replace(".", "_")


def bootstrap(endpoint: str, port: int, admin_port: int, xds: Path) -> Json:
    """The part of the configuration that lives as long as the process."""
    return {
        "node": {"id": endpoint, "cluster": "arr-coc"},
        "admin": {"address": _address(admin_port)},
        "dynamic_resources": {"cds_config": _watched(xds, "clusters.json")},
        "static_resources": {"listeners": [_listener(endpoint, port, xds)]},
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"contains": "attempt_us"}, "buckets": list(EDGES_US)}
            ]
        },
    }


def _listener(endpoint: str, port: int, xds: Path) -> Json:
    manager = {
        "stat_prefix": "endpoint",
        "rds": {"route_config_name": endpoint, "config_source": _watched(xds, "routes.json")},
        "http_filters": [
            _filter("buffer", {"max_request_bytes": REQUEST_BYTES_MAX}),
            _filter("router", {"upstream_log": _attempts()}),
        ],
        "request_timeout": f"{REQUEST_TIMEOUT_S}s",  # for the client to send all of it
        "stream_idle_timeout": f"{2 * REQUEST_TIMEOUT_S}s",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "local_reply_config": {"body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}},
        "generate_request_id": False,
        "server_name": "arr-coc",
    }
    name = f"{_TYPES}.extensions.filters.network.http_connection_manager.v3"
    typed = {"@type": f"{name}.HttpConnectionManager", **manager}
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}
    return {
        "name": endpoint,
        "address": _address(port),
        "per_connection_buffer_limit_bytes": REQUEST_BYTES_MAX,
        "filter_chains": [{"filters": [chain]}],
    }


def _attempts() -> Sequence[Json]:
    """Count and time every attempt at a prediction under the version that got it.

    The clusters' own statistics will not do: for a cluster with a fall-back Envoy charges
    answers and times to the pair, with the time of the fall-back's attempt included.
    """
    of_version = _tag("version", f"%UPSTREAM_METADATA({MARKS}:version)%")
    tags = [of_version, _tag("code", "%RESPONSE_CODE%"), _tag("flags", "%RESPONSE_FLAGS%")]
    counted = {"stat": {"name": "attempts", "tags": tags}, "value_fixed": 1}
    timed = {
        "stat": {"name": "attempt_us", "tags": [of_version]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
    }
    predicting = {"name": ":path", "string_match": {"exact": PREDICT_ROUTE}}
    all_ = {"header_filter": {"header": predicting}}
    # An answer that is retried is not read to its end, so it has no time.
    answered = {"and_filter": {"filters": [all_, _status("GE", 200), _status("LE", 499)]}}
    return [_logger(all_, {"counters": [counted]}), _logger(answered, {"histograms": [timed]})]


def _logger(which: Json, stats: Json) -> Json:
    kind = f"{_TYPES}.extensions.access_loggers.stats.v3.Config"
    typed = {"@type": kind, "stats_scope": {"prefix": "endpoint"}, **stats}
    return {"name": "envoy.access_loggers.stats", "filter": which, "typed_config": typed}


def _tag(name: str, value: str) -> Json:
    return {"name": name, "value_format": value}


def _status(comparison: str, code: int) -> Json:
    value = {"default_value": code, "runtime_key": f"arr-coc.status_{code}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


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
    return _typed("config.cluster.v3.Cluster", cluster)


def _host(server: Server, port: int) -> Json:
    marks = {"filter_metadata": {MARKS: {"version": server.version}}}
    return {"endpoint": {"address": _address(port)}, "metadata": marks}


def _pair(name: str, versions: Sequence[str]) -> Json:
    kind = f"{_TYPES}.extensions.clusters.aggregate.v3.ClusterConfig"
    cluster = {
        "name": name,
        "alt_stat_name": stat_name(name),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": kind, "clusters": list(versions)},
        },
        "circuit_breakers": _BUDGET,
    }
    return _typed("config.cluster.v3.Cluster", cluster)


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


def _pinned(version: str) -> Sequence[Json]:
    return [
        {**_matching(path, method, pinned_to=version), "route": _to(version)}
        for path, method in ((PREDICT_ROUTE, "POST"), (HEALTH_ROUTE, "GET"))
    ]


def _to(cluster: str) -> Json:
    return {"cluster": cluster, "timeout": f"{REQUEST_TIMEOUT_S}s"}


def _weighted(split: Split) -> Sequence[Json]:
    shares = [
        {"name": split.cluster(version), "weight": weight}
        for version, weight in sorted(split.weights.items())
    ]
    action = {
        "weighted_clusters": {"clusters": shares},
        "timeout": f"{REQUEST_TIMEOUT_S}s",
        "retry_policy": _retries(),
    }
    if split.shadow:
        fraction = {"default_value": {"numerator": split.shadow_percent}}  # of a hundred
        policy = {"cluster": split.shadow, "runtime_fraction": fraction}
        action["request_mirror_policies"] = [policy]
    return [
        {**_matching(path, method), "route": action}
        for path, method in ((PREDICT_ROUTE, "POST"), (HEALTH_ROUTE, "GET"))
    ]


def _retries() -> Json:
    """Predicting changes nothing, so any failed attempt may be made again elsewhere."""
    previous = f"{_TYPES}.extensions.retry"
    return {
        "retry_on": "5xx,reset,connect-failure,refused-stream",
        "num_retries": 3,
        "per_try_timeout": f"{_TRY_TIMEOUT_S}s",
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{previous}.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": "5",
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{previous}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def _nothing_deployed(endpoint: str) -> Sequence[Json]:
    message = f"nothing is deployed at endpoint {endpoint}"
    return [
        _answer(_matching(path, method), 503, message)
        for path, method in ((PREDICT_ROUTE, "POST"), (HEALTH_ROUTE, "GET"))
    ]


def _answer(matching: Json, status: int, message: str) -> Json:
    return {
        **matching,
        "direct_response": {"status": status, "body": {"inline_string": message}},
    }


def _matching(path: str, method: str, pinned_to: str | None = None) -> Json:
    """A match by path and method; pinned to a version, to any ("") or to none (None)."""
    headers: list[Json] = [{"name": ":method", "string_match": {"exact": method}}]
    if pinned_to:
        headers.append({"name": PIN_HEADER, "string_match": {"exact": pinned_to}})
    elif pinned_to == "":
        headers.append({"name": PIN_HEADER, "present_match": True})
    return {"match": {"path": path, "headers": headers}}


def _watched(xds: Path, name: str) -> Json:
    source = {"path": str(xds / name), "watched_directory": {"path": str(xds)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _filter(name: str, settings: Json) -> Json:
    kind = f"{_TYPES}.extensions.filters.http.{name}.v3.{name.capitalize()}"
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": kind, **settings}}


def _typed(kind: str, resource: Json) -> Json:
    """Add the type and a mark of the content, by which its arrival is confirmed."""
    content = hashlib.sha256(json.dumps(resource, sort_keys=True).encode()).hexdigest()
    metadata = {"filter_metadata": {MARKS: {"content": content}}}
    return {"@type": f"{_TYPES}.{kind}", **resource, "metadata": metadata}


def _discovery(resources: Sequence[Json]) -> Json:
    text = json.dumps(resources, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"version_info": version, "resources": [*resources]}
