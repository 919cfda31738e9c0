"""Envoy's bootstrap: its listener with what guards it, its counters, its admin port."""

from collections.abc import Sequence
from pathlib import Path

from deployments.local.envoy.configuration import (
    ADMIN_CLUSTER,
    ATTEMPT_HEADER,
    EDGES_US,
    HEALTH_ROUTE,
    MARKS,
    METRICS_ROUTE,
    PIN_HEADER,
    PREDICT_ROUTE,
    REQUEST_TIMEOUT_S,
    TOKENS,
    TYPES,
    Guard,
    Json,
    address,
)


def bootstrap(endpoint: str, port: int, admin_port: int, xds: Path, guard: Guard) -> Json:
    """The part of the configuration that lives as long as the process."""
    buckets = {"match": {"contains": "request_us"}, "buckets": list(EDGES_US)}
    return {
        "node": {"id": endpoint, "cluster": "arr-coc"},
        "admin": {"address": address(admin_port)},
        "dynamic_resources": {"cds_config": _watched(xds, "clusters.json")},
        "static_resources": {
            "listeners": [_listener(endpoint, port, xds, guard)],
            "clusters": [_admin(admin_port)],
        },
        "stats_flush_interval": "1s",
        "stats_config": {"histogram_bucket_settings": [buckets]},
    }


def _listener(endpoint: str, port: int, xds: Path, guard: Guard) -> Json:
    manager = {
        "stat_prefix": "endpoint",
        "rds": {"route_config_name": endpoint, "config_source": _watched(xds, "routes.json")},
        "http_filters": [
            *([_tokens()] if guard.tokens else []),
            # Does nothing but on routes with a limit of their own.
            _filter("local_ratelimit", "LocalRateLimit", {"stat_prefix": "endpoint"}),
            _filter("buffer", "Buffer", {"max_request_bytes": guard.request_bytes_max}),
            _filter("router", "Router", {"upstream_log": _first_attempts()}),
        ],
        "access_log": [_unreachable()],
        "request_timeout": f"{REQUEST_TIMEOUT_S}s",  # for the client to send all of it
        "stream_idle_timeout": f"{2 * REQUEST_TIMEOUT_S}s",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "local_reply_config": {"body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}},
        "generate_request_id": False,
        "server_name": "arr-coc",
    }
    name = f"{TYPES}.extensions.filters.network.http_connection_manager.v3"
    typed = {"@type": f"{name}.HttpConnectionManager", **manager}
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}
    return {
        "name": endpoint,
        "address": address(port),
        "per_connection_buffer_limit_bytes": guard.request_bytes_max,
        "filter_chains": [{"filters": [chain]}],
    }


def _tokens() -> Json:
    """Ask for a bearer token everywhere but for health and metrics.

    The tokens come from Envoy's environment, so they stand in no file and no config_dump.
    Without any, nobody gets in.
    """
    code = f"""
local accepted = {{}}
for token in string.gmatch(os.getenv("{TOKENS}") or "", "[^,%s]+") do
  accepted["Bearer " .. token] = true
end
local open = {{["{HEALTH_ROUTE}"] = true, ["{METRICS_ROUTE}"] = true}}
function envoy_on_request(handle)
  local headers = handle:headers()
  if open[headers:get(":path")] then return end
  if accepted[headers:get("authorization") or ""] then
    headers:remove("authorization")
  else
    handle:respond({{[":status"] = "401", ["www-authenticate"] = "Bearer"}},
                   "a bearer token is needed, and this is none that is accepted")
  end
end
"""
    return _filter("lua", "Lua", {"default_source_code": {"inline_string": code}})


def _admin(port: int) -> Json:
    """Envoy's own admin port as a cluster, from which /metrics is answered."""
    host = {"endpoint": {"address": address(port)}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [host]}],
        },
    }


_VERSION = {"name": "version", "value_format": f"%METADATA(CLUSTER:{MARKS}:version)%"}
_USE = {"name": "use", "value_format": f"%METADATA(CLUSTER:{MARKS}:use)%"}
_BY = {"name": "by", "value_format": f"%UPSTREAM_METADATA({MARKS}:version)%"}


def _first_attempts() -> Sequence[Json]:
    """Count and time each request once: by its first attempt, under the version chosen.

    Later attempts repair it for the client and go to another version, so they say nothing
    about what the split is held against. `by` is the version whose server took the attempt:
    another one where no server of the chosen version could.

    The clusters' own statistics will not do: for a cluster with a fallback Envoy charges
    answers and times to the pair, with the time of the fallback's attempt included. The
    attempt's number is told to the server, so it stands in a header; Envoy's own
    %UPSTREAM_REQUEST_ATTEMPT_COUNT% is 0 in this log.
    """
    timed = {
        "stat": {"name": "request_us", "tags": [_VERSION, _USE, _BY]},
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
    }
    # An answer that is retried is not read to its end, so it has no time.
    answered = _all_of(*_PREDICTING, _status("GE", 200), _status("LE", 499))
    return [_counter(_all_of(*_PREDICTING)), _logger(answered, {"histograms": [timed]})]


def _unreachable() -> Json:
    """Count the requests that were never sent: no server of any version could take them."""
    return _counter(_all_of(*_PREDICTING, {"response_flag_filter": {"flags": ["UH"]}}))


def _counter(which: Json) -> Json:
    tags = [
        _VERSION,
        _USE,
        _BY,
        _tag("code", "%RESPONSE_CODE%"),
        _tag("flags", "%RESPONSE_FLAGS%"),
    ]
    counted = {"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}
    return _logger(which, {"counters": [counted]})


def _logger(which: Json, stats: Json) -> Json:
    kind = f"{TYPES}.extensions.access_loggers.stats.v3.Config"
    typed = {"@type": kind, "stats_scope": {"prefix": "endpoint"}, **stats}
    return {"name": "envoy.access_loggers.stats", "filter": which, "typed_config": typed}


def _all_of(*filters: Json) -> Json:
    return {"and_filter": {"filters": [*filters]}}


def _header(name: str, pattern: Json) -> Json:
    return {"header_filter": {"header": {"name": name, "string_match": pattern}}}


_PREDICTING = (
    _header(":path", {"safe_regex": {"regex": rf"{PREDICT_ROUTE}(\?.*)?"}}),
    _header(ATTEMPT_HEADER, {"exact": "1"}),
    # Who asks for a version by name is no traffic.
    {"header_filter": {"header": {"name": PIN_HEADER, "present_match": False}}},
)


def _tag(name: str, value: str) -> Json:
    return {"name": name, "value_format": value}


def _status(comparison: str, code: int) -> Json:
    value = {"default_value": code, "runtime_key": f"arr-coc.status_{code}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _watched(xds: Path, name: str) -> Json:
    source = {"path": str(xds / name), "watched_directory": {"path": str(xds)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def _filter(name: str, kind: str, settings: Json) -> Json:
    typed = {"@type": f"{TYPES}.extensions.filters.http.{name}.v3.{kind}", **settings}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}
