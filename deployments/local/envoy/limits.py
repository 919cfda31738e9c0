"""What strangers may take of Envoy: connections, time, memory.

A connection costs 8 to 20 KB, a small request what it has, and of large ones gate.lua admits so
many bytes at once. Whoever is slow is closed: within 2 s with its headers, within
`serving.request_s_max` with its request; who says nothing, sends nothing or takes no answer,
within seconds when the connections are near their limit.
The operators' door is under none of these limits, so a rollback gets in when nobody does.
"""

from deployments.local.envoy.configuration import (
    REQUEST_TIMEOUT_S,
    SMALL_BYTES_MAX,
    TYPES,
    Guard,
    Json,
)

_HEADERS_S, _HEADERS_KB, _HEADERS_MAX = 2, 16, 64
_ANSWER_S = 10  # for the client to take its answer
_IDLE_S, _IDLE_FEW_S = 60, 1  # a connection between requests; when there are too many
_STREAM_FEW_S = 3  # a request or answer in which nothing moves, when there are too many
_BASE_BYTES = 128 * 2**20  # Envoy with its configuration and statistics
_CONNECTION_BYTES = 64 * 2**10

_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
_HEAP = "envoy.resource_monitors.fixed_heap"


def patience(guard: Guard) -> Json:
    """How long the clients' door waits for whom, and how long their headers may be."""
    return {
        "codec_type": "HTTP1",
        "max_request_headers_kb": _HEADERS_KB,
        "request_headers_timeout": f"{_HEADERS_S}s",
        "request_timeout": _seconds(guard.request_s_max),  # for the client to send all of it
        "stream_idle_timeout": f"{REQUEST_TIMEOUT_S + 5}s",
        "delayed_close_timeout": "1s",
        "common_http_protocol_options": {
            "idle_timeout": f"{_IDLE_S}s",
            "max_headers_count": _HEADERS_MAX,
            "max_stream_duration": _seconds(
                guard.request_s_max + REQUEST_TIMEOUT_S + _ANSWER_S
            ),
        },
    }


def unlimited() -> Json:
    """What lets the operators' door in where the limits of `overload_manager` are reached."""
    return {"bypass_overload_manager": True, "ignore_global_conn_limit": True}


def overload_manager(guard: Guard) -> Json:
    """The limits of the whole process; memory is the last resort, and normally not reached."""
    heap = (
        _BASE_BYTES
        + 2 * guard.unfinished_bytes_max
        + guard.connections_max * (SMALL_BYTES_MAX + _CONNECTION_BYTES)
    )
    # All that Envoy can shorten and that we use: not the time for headers, nor that for a
    # whole request.
    shorter = [
        {"timer": f"HTTP_DOWNSTREAM_{which}", "min_timeout": f"{few_s}s"}
        for which, few_s in (
            ("CONNECTION_IDLE", _IDLE_FEW_S),
            ("STREAM_IDLE", _STREAM_FEW_S),
            ("STREAM_FLUSH", _STREAM_FEW_S),
        )
    ]
    scaling = f"{TYPES}.config.overload.v3.ScaleTimersOverloadActionConfig"
    sooner = {"@type": scaling, "timer_scale_factors": shorter}
    return {
        "refresh_interval": "0.1s",
        "resource_monitors": [
            _monitor(_HEAP, "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=heap),
            _monitor(
                _CONNECTIONS,
                "downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=guard.connections_max,
            ),
        ],
        "actions": [
            {**_action("reduce_timeouts", _between(_CONNECTIONS)), "typed_config": sooner},
            _action("shrink_heap", _above(_HEAP, 0.5)),
            _action("stop_accepting_requests", _above(_HEAP, 0.95)),
        ],
    }


def _seconds(value: float) -> str:
    return f"{value:.3f}s"


def _monitor(name: str, kind: str, **limits: int) -> Json:
    typed = {"@type": f"{TYPES}.extensions.resource_monitors.{kind}", **limits}
    return {"name": name, "typed_config": typed}


def _action(name: str, trigger: Json) -> Json:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


def _above(monitor: str, share: float) -> Json:
    return {"name": monitor, "threshold": {"value": share}}


def _between(monitor: str) -> Json:
    return {
        "name": monitor,
        "scaled": {"scaling_threshold": 0.5, "saturation_threshold": 0.9},
    }
