"""Envoy's bootstrap: its two doors with what guards them, its counters."""

from collections.abc import Sequence
from pathlib import Path

from deployments.local.envoy.configuration import (
    ADMIN_CLUSTER,
    CODING_HEADER,
    EDGES_US,
    REQUEST_TIMEOUT_S,
    SMALL_BYTES_MAX,
    TYPES,
    Doors,
    Guard,
    Json,
    address,
    own_socket,
)
from deployments.local.envoy.counting import first_attempts, unanswered
from deployments.local.envoy.gate import gate
from deployments.local.envoy.limits import (
    overload_manager,
    patience,
    unlimited,
)


def bootstrap(endpoint: str, doors: Doors, xds: Path, guard: Guard) -> Json:
    """The part of the configuration that lives as long as the process."""
    buckets = {"match": {"contains": "request_us"}, "buckets": list(EDGES_US)}
    return {
        "node": {"id": endpoint, "cluster": "arr-coc"},
        "admin": {"address": own_socket(doors.admin)},
        "dynamic_resources": {"cds_config": _watched(xds, "clusters.json")},
        "static_resources": {
            "listeners": [
                _clients_door(endpoint, doors, xds, guard),
                _operators_door(endpoint, doors.operators, xds, guard),
            ],
            "clusters": [_admin(doors.admin)],
        },
        "overload_manager": overload_manager(guard),
        "stats_flush_interval": "1s",
        "stats_config": {"histogram_bucket_settings": [buckets]},
    }


def _clients_door(endpoint: str, doors: Doors, xds: Path, guard: Guard) -> Json:
    """Where everybody asks: whoever has no token or asks too much gets no further."""
    before = gate(guard, doors.operators)
    manager = {**_manager(endpoint, xds, guard, before), **patience(guard)}
    return _listener(endpoint, address(doors.port), manager)


def _operators_door(endpoint: str, socket: Path, xds: Path, guard: Guard) -> Json:
    """Where we ask: the same routes, counted alike, with nothing before them."""
    name, manager = f"{endpoint}-operators", _manager(endpoint, xds, guard, [])
    return {**_listener(name, own_socket(socket), manager), **unlimited()}


def _manager(endpoint: str, xds: Path, guard: Guard, before: Sequence[Json]) -> Json:
    return {
        "stat_prefix": "endpoint",
        "rds": {"route_config_name": endpoint, "config_source": _watched(xds, "routes.json")},
        "http_filters": [
            *before,
            _filter("buffer", "Buffer", {"max_request_bytes": guard.request_bytes_max}),
            _filter("router", "Router", {"upstream_log": first_attempts()}),
        ],
        "access_log": [unanswered()],
        **_STRANGERS,
        "request_timeout": f"{REQUEST_TIMEOUT_S}s",  # for the client to send all of it
        "stream_idle_timeout": f"{2 * REQUEST_TIMEOUT_S}s",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "local_reply_config": {"body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}},
        "generate_request_id": False,
        "server_name": "arr-coc",
    }


# What a client says of itself is never believed: Envoy's own headers would set time-outs and
# retries for it, and make a good version time out. Nobody is internal, and whatever a client
# sends under such a name is gone before anything looks at it.
_CLAIMED = ("x-envoy-", "x-forwarded-", "x-request-id", "grpc-timeout", CODING_HEADER)
_CODING = "%REQ(TRANSFER-ENCODING)%"
_STRANGERS: Json = {
    "use_remote_address": True,
    "skip_xff_append": True,
    # An address that no peer has: without any, all of 127.0.0.1 would be taken for internal.
    "internal_address_config": {
        "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
    },
    "early_header_mutation_extensions": [
        {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": f"{TYPES}.extensions.http.early_header_mutation.header_mutation.v3"
                ".HeaderMutation",
                "mutations": [
                    *({"remove_on_match": {"key_matcher": {"prefix": p}}} for p in _CLAIMED),
                    # Envoy takes the original away before the gate can see it.
                    {"append": {"header": {"key": CODING_HEADER, "value": _CODING}}},
                ],
            },
        }
    ],
}


def _listener(name: str, where: Json, manager: Json) -> Json:
    kind = f"{TYPES}.extensions.filters.network.http_connection_manager.v3"
    typed = {"@type": f"{kind}.HttpConnectionManager", **manager}
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}
    return {
        "name": name,
        "address": where,
        # In pieces, so that a large request holds up no small one; the buffer filter keeps it.
        "per_connection_buffer_limit_bytes": SMALL_BYTES_MAX,
        "filter_chains": [{"filters": [chain]}],
    }


def _admin(socket: Path) -> Json:
    """Envoy's own administration as a cluster, from which /metrics is answered.

    It works in the thread that takes new routes and looks after the servers' health, so it
    is asked one thing at a time, whoever asks: one more may wait, others get 503.
    """
    few = {"max_connections": 1, "max_pending_requests": 1, "max_requests": 2}
    host = {"endpoint": {"address": own_socket(socket)}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [few]},
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [host]}],
        },
    }


def _watched(xds: Path, name: str) -> Json:
    source = {"path": str(xds / name), "watched_directory": {"path": str(xds)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _filter(name: str, kind: str, settings: Json) -> Json:
    typed = {"@type": f"{TYPES}.extensions.filters.http.{name}.v3.{kind}", **settings}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}
