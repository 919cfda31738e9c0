"""The clients' door: who may ask for what, and how often (gate.lua does it).

Each route says in its metadata whom it needs, so no path is read twice; the host's metadata
holds the SHA-256 of each accepted token with its role and name. Both come with the routes,
so tokens change without a restart, and no token stands in a file or in config_dump. What is
asked for by name counts for the rate: the gate alone says who asks.

An operator is who shows an operator's token. Where no tokens are asked for nobody is one at
this door: naming a version and reading /metrics is then for the operators' door alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from deployments.local.envoy.configuration import (
    CODING_HEADER,
    MARKS,
    SMALL_BYTES_MAX,
    TYPES,
    WORKERS,
    Guard,
    Json,
)

Needs = Literal["nobody", "client", "operator"]

_NAME = "envoy.filters.http.lua"
_LIMIT = "envoy.filters.http.local_ratelimit"
_FOLDER = Path(__file__).parent
_HEADER_BYTES_MAX = 128  # of an Authorization header; more is not even looked at
_COLLECT_MS = 50
_CLIENTS_MAX = 1000  # whose rate is known at the same time


def gate(guard: Guard, operators: Path) -> Sequence[Json]:
    """The filters of the clients' door that let in, or refuse: operators to their own door."""
    settings = {
        "tokens": guard.tokens,
        "operators": operators.name,
        "token_bytes_max": _HEADER_BYTES_MAX,
        "coding_header": CODING_HEADER,
        "small_bytes_max": SMALL_BYTES_MAX,
        "request_bytes_max": guard.request_bytes_max,
        "lent_bytes_max": guard.unfinished_bytes_max // WORKERS,
        "collect_ms": _COLLECT_MS,
    }
    lines = [f"  {name} = {json.dumps(value)}," for name, value in settings.items()]
    parts = [(_FOLDER / name).read_text() for name in ("sha256.lua", "gate.lua")]
    code = "\n".join(["local settings = {", *lines, "}", *parts])
    kind = f"{TYPES}.extensions.filters.http.lua.v3.Lua"
    lua = {"@type": kind, "default_source_code": {"inline_string": code}}
    # Does nothing but on routes with a limit of their own.
    limit = {"@type": _LIMIT_TYPE, "stat_prefix": "endpoint"}
    return [{"name": _NAME, "typed_config": lua}, {"name": _LIMIT, "typed_config": limit}]


def needs(whom: Needs, **more: str) -> Json:
    """The metadata of a route: whose token it asks for. One without asks for a client's.

    `body="none"`: a request with one is refused before it has come. `says`: the gate answers
    with this and 404, without waiting for the rest.
    """
    return {"metadata": {"filter_metadata": {_NAME: {"needs": whom, **more}}}}


def accepted(guard: Guard) -> Json:
    """The metadata of the host: who holds which token."""
    return {"metadata": {"filter_metadata": {_NAME: {**guard.accepted}}}}


def rate_limit(guard: Guard) -> Json:
    """What a route is limited by: so much for each client by name; for all if none has one."""
    if not guard.rate_per_s:
        return {}
    bucket = _bucket(guard.rate_per_s)
    who = {"key": MARKS, "path": [{"key": "client"}]}
    action = {"descriptor_key": "client", "metadata_key": who, "source": "DYNAMIC"}
    each = {
        "always_consume_default_token_bucket": False,
        "rate_limits": [{"actions": [{"metadata": {**action, "skip_if_absent": True}}]}],
        "descriptors": [{"entries": [{"key": "client"}], "token_bucket": bucket}],
        "max_dynamic_descriptors": _CLIENTS_MAX,
    }
    return _limited(bucket, each)


def fixed_limit(rate_per_s: int) -> Json:
    """What a route for operators is limited by, all of them together."""
    return _limited(_bucket(rate_per_s), {})


def _bucket(rate_per_s: int) -> Json:
    return {"max_tokens": rate_per_s, "tokens_per_fill": rate_per_s, "fill_interval": "1s"}


def _limited(bucket: Json, each: Json) -> Json:
    whole = {"default_value": {"numerator": 100}}
    limit = {
        "@type": _LIMIT_TYPE,
        "stat_prefix": "endpoint",
        "token_bucket": bucket,
        **each,
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        "filter_enabled": whole,
        "filter_enforced": whole,
    }
    return {"typed_per_filter_config": {_LIMIT: limit}}


_LIMIT_TYPE = f"{TYPES}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
