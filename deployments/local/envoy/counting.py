"""What Envoy counts and times: each request once, for the version that the split chose."""

from collections.abc import Sequence

from deployments.local.envoy.configuration import (
    ATTEMPT_HEADER,
    MARKS,
    PIN_HEADER,
    TYPES,
    Json,
)

# What a server refuses because too much waits there depends on who asks how much, and on its
# share of the traffic: it says nothing of a version, and must not make its trouble look small.
TOO_MANY = 429

_VERSION = {"name": "version", "value_format": f"%METADATA(CLUSTER:{MARKS}:version)%"}
_USE = {"name": "use", "value_format": f"%METADATA(CLUSTER:{MARKS}:use)%"}
_BY = {"name": "by", "value_format": f"%UPSTREAM_METADATA({MARKS}:version)%"}


def first_attempts() -> Sequence[Json]:
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
    within = (_status("GE", 200), _status("LE", 499), _status("NE", TOO_MANY))
    answered = _all_of(*_PREDICTING, *within)
    return [_counter(_all_of(*_PREDICTING)), _logger(answered, {"histograms": [timed]})]


def unanswered() -> Json:
    """Count what only the request's own end tells, in the log of whole requests.

    UH: it was never sent, no server of any version could take it. UT: the server did not answer
    in time; the attempt's end looks just like that of a client that has gone, which is not
    a fault of the version and counts for none.
    """
    return _counter(_all_of(*_PREDICTING, {"response_flag_filter": {"flags": ["UH", "UT"]}}))


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


def _tag(name: str, value: str) -> Json:
    return {"name": name, "value_format": value}


def _status(comparison: str, code: int) -> Json:
    value = {"default_value": code, "runtime_key": f"arr-coc.status_{code}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


_PREDICTING = (
    # All that is posted and reaches a version is a request to predict, however its path ends.
    _header(":method", {"exact": "POST"}),
    _header(ATTEMPT_HEADER, {"exact": "1"}),
    # Who asks for a version by name is not traffic.
    {"header_filter": {"header": {"name": PIN_HEADER, "present_match": False}}},
)
