"""Who gets which request: pinned, by weight, copied, or nobody (RDS)."""

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.local.envoy.configuration import (
    ADMIN_CLUSTER,
    CODING_HEADER,
    HEALTH_ROUTE,
    METRICS_ROUTE,
    PIN_HEADER,
    PREDICT_ROUTE,
    REQUEST_TIMEOUT_S,
    TYPES,
    Guard,
    Json,
    Server,
    Split,
    discovery,
    mirror_name,
    typed,
)
from deployments.local.envoy.gate import Needs, accepted, fixed_limit, needs, rate_limit

_ANSWER_TIMEOUT_S = 6  # from the end of a request; the histogram of times ends at 10 s
_METRICS_TIMEOUT_S = 5  # one that does not read what it asked for keeps others waiting
_METRICS_PER_S = 1
_PINS_PER_S = 16  # at the clients' door, for each version and route


def routes(endpoint: str, servers: Sequence[Server], split: Split, guard: Guard) -> Json:
    """Who gets which request, as an RDS file."""
    pinned = [entry for server in servers for entry in _pinned(server.version, guard)]
    unknown = _answer(f"no such version is deployed at endpoint {endpoint}", 404, pinned_to="")
    nothing = _answer(f"nothing is deployed at endpoint {endpoint}", 503)
    weighted = _weighted(split, guard) if split.weights else nothing
    host = {
        "name": endpoint,
        "domains": ["*"],
        "routes": [*pinned, *unknown, *weighted, _METRICS, _NOTHING_ELSE],
        # Tells first attempts from later ones where they are counted (listener.py).
        "include_request_attempt_count": True,
        # What opens this door is nobody else's business.
        "request_headers_to_remove": [*_OURS],
        **accepted(guard),
    }
    route = {
        "name": endpoint,
        "virtual_hosts": [host],
        # A route to a cluster that is not there is refused, and the routes before stay.
        "validate_clusters": True,
    }
    return discovery([typed(_ROUTE, route)])


def admitting(routes: Mapping[str, Any], guard: Guard) -> Json:
    """The same RDS file, but for those whom it lets in."""
    [route] = routes["resources"]
    bare = {name: value for name, value in route.items() if name not in ("@type", "metadata")}
    hosts = [{**host, **accepted(guard)} for host in route["virtual_hosts"]]
    return discovery([typed(_ROUTE, {**bare, "virtual_hosts": hosts})])


def split_of(route: Mapping[str, Any]) -> Split:
    """The split that a RouteConfiguration carries, read back from Envoy."""
    entries = (entry for host in route["virtual_hosts"] for entry in host["routes"])
    for action in (entry.get("route", {}) for entry in entries):
        shares = action.get("weighted_clusters", {}).get("clusters", [])
        if shares:
            names = [share["name"].partition("/") for share in shares]
            weights = {
                version: int(share["weight"])
                for (version, _, _), share in zip(names, shares, strict=True)
            }
            fallback = next((fallback for _, _, fallback in names if fallback), "")
            return Split(weights, fallback, _mirror_of(action))
    return Split()


def _mirror_of(action: Mapping[str, Any]) -> Mapping[str, int]:
    return {
        policy["cluster"].removeprefix(mirror_name("")): int(
            policy["runtime_fraction"]["default_value"]["numerator"]
        )
        for policy in action.get("request_mirror_policies", [])
    }


def _pinned(version: str, guard: Guard) -> Sequence[Json]:
    # A priority of its own: clients cannot use up what may wait for its servers.
    action = {"cluster": version, "timeout": f"{REQUEST_TIMEOUT_S}s", "priority": "HIGH"}
    rate_per_s = min(_PINS_PER_S, guard.rate_per_s or _PINS_PER_S)
    return [
        {**route, **fixed_limit(rate_per_s)}
        for route in _both(action, guard, pinned_to=version)
    ]


def _weighted(split: Split, guard: Guard) -> Sequence[Json]:
    shares: Json = {
        "clusters": [
            {"name": split.cluster(version), "weight": weight}
            for version, weight in sorted(split.weights.items())
        ]
    }
    action = {
        "weighted_clusters": shares,
        "timeout": f"{_ANSWER_TIMEOUT_S}s",
        "retry_policy": _retries(),
    }
    if guard.sticky_header:
        shares["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": guard.sticky_header}}]
    if split.mirror:
        action["request_mirror_policies"] = [
            {
                "cluster": mirror_name(version),
                "runtime_fraction": {"default_value": {"numerator": percent}},
            }
            for version, percent in sorted(split.mirror.items())
        ]
    return _both(action, guard)


def _both(action: Json, guard: Guard, pinned_to: str | None = None) -> Sequence[Json]:
    """The routes to predict, at a limited rate if so configured, and to ask for health."""
    predict = {**_matching(PREDICT_ROUTE, "POST", pinned_to), "route": action}
    health = {**_matching(HEALTH_ROUTE, "GET", pinned_to), "route": action}
    return [{**predict, **rate_limit(guard)}, health]


def _retries() -> Json:
    """Predicting changes nothing, so an attempt that failed may be made again elsewhere.

    One that timed out is not, which is why attempts have no time-out of their own: whatever
    kept a server busy for so long would do the same to the next. Three attempts find a living
    server where one of each version has just died; a request that ends its server takes no
    more than three along.
    """
    previous = f"{TYPES}.extensions.retry"
    return {
        "retry_on": "5xx,reset,connect-failure,refused-stream",
        "num_retries": 2,
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


def _answer(message: str, status: int, pinned_to: str | None = None) -> Sequence[Json]:
    return [
        {**_matching(path, method, pinned_to), **_saying(message, status)}
        for path, method in ((PREDICT_ROUTE, "POST"), (HEALTH_ROUTE, "GET"))
    ]


def _saying(message: str, status: int) -> Json:
    return {"direct_response": {"status": status, "body": {"inline_string": message}}}


def _matching(path: str, method: str, pinned_to: str | None = None) -> Json:
    """A match by path and method; pinned to a version, to any ("") or to none (None)."""
    headers: list[Json] = [{"name": ":method", "string_match": {"exact": method}}]
    if pinned_to:
        headers.append({"name": PIN_HEADER, "string_match": {"exact": pinned_to}})
    elif pinned_to == "":
        headers.append({"name": PIN_HEADER, "present_match": True})
    whom: Needs = "operator" if pinned_to is not None else _WHOM[path]
    body = {} if method == "POST" else {"body": "none"}
    return {"match": {"path": path, "headers": headers}, **needs(whom, **body)}


_OURS = ("authorization", "proxy-authorization", "cookie", CODING_HEADER)
_ROUTE = "config.route.v3.RouteConfiguration"
_WHOM: Mapping[str, Needs] = {
    PREDICT_ROUTE: "client",
    HEALTH_ROUTE: "nobody",
    METRICS_ROUTE: "operator",
}
_METRICS = {
    **_matching(METRICS_ROUTE, "GET"),
    **fixed_limit(_METRICS_PER_S),
    "route": {
        "cluster": ADMIN_CLUSTER,
        "prefix_rewrite": "/stats/prometheus",
        "timeout": f"{_METRICS_TIMEOUT_S}s",
    },
}
_SERVED = f"only POST {PREDICT_ROUTE} and GET {HEALTH_ROUTE} are served here"
_NOTHING_ELSE = {
    "match": {"prefix": "/"},
    **needs("client", says=_SERVED),
    **_saying(_SERVED, 404),
}
