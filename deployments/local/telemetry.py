"""What the versions of the local endpoints answered, from Envoy's counters and the replays."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from deployments.local.envoy.admin import Admin
from deployments.local.envoy.configuration import EDGES_US
from deployments.local.layout import Layout
from policy.counts import Counts, Labelled
from policy.errors import EndpointError, Unsupported
from policy.rollout.record import Compared


class EnvoyTelemetry:
    """`deployments.Telemetry` on this machine."""

    def __init__(self, layout: Layout, admins: Mapping[str, Admin]) -> None:
        self._layout, self._admins = layout, admins

    def counts(self, endpoint: str, version: str) -> Counts:
        """See the protocol. An attempt fails by 5xx, reset, time-out or refused connection.

        Attempts that a client gave up are left out. Times are those of answered attempts,
        from the first byte sent to the last received.
        """
        if endpoint not in self._admins:
            raise Unsupported(f"no endpoint {endpoint!r}", expected=str(list(self._admins)))
        name = re.escape(version)
        pattern = rf"^endpoint\.attempt(s|_us)\.version\.{name}($|\.code\.)"
        stats = self._admins[endpoint].stats(pattern)
        attempts = [_attempts(stat) for stat in stats if "value" in stat]
        return Counts(
            requests=sum(count for _, count in attempts),
            errors=sum(count for code, count in attempts if code == 0 or code >= 500),
            latency=_per_bucket([b for stat in stats for b in _buckets(stat)]),
        )

    def labels(self, endpoint: str, version: str) -> Labelled:
        seen = self._tallied(endpoint, "versions", version)
        return Labelled(labels=seen["labelled"], correct=seen["correct"])

    def compared(self, endpoint: str, version: str) -> Compared:
        seen = self._tallied(endpoint, "shadows", version)
        return Compared(compared=seen["compared"], differed=seen["differed"])

    def _tallied(self, endpoint: str, part: str, version: str) -> Counter[str]:
        """The sum over all replays to this endpoint."""
        seen = Counter[str]()
        for path in self._layout.tallies(endpoint).glob("*.json"):
            try:
                seen.update(json.loads(path.read_text()).get(part, {}).get(version, {}))
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise EndpointError(
                    f"the tally {path} cannot be read ({error!r})",
                    holds="no answer counts as labelled until it can",
                    do="delete it, if its replay has ended",
                ) from error
        return seen


def _attempts(stat: Mapping[str, Any]) -> tuple[int, int]:
    """(status, how many) of one counter; status 0 where no answer came."""
    code, _, flags = stat["name"].rsplit(".code.", 1)[1].partition(".flags.")
    by_client = code == "0" and flags in ("DC", "-")
    return int(code), 0 if by_client else int(stat["value"])


def _buckets(stat: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    histograms = stat.get("histograms", [])
    return [bucket for histogram in histograms for bucket in histogram["buckets"]]


def _per_bucket(buckets: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Counts up to each edge, as Envoy gives them, to counts between the edges.

    Envoy's last edge is 10 s and no attempt may take as long, so the last bucket is 0.
    """
    upto = {float(bucket["upper_bound"]): int(bucket["cumulative"]) for bucket in buckets}
    cumulative = [0, *(upto.get(edge, 0) for edge in EDGES_US)]
    return (*(after - before for before, after in pairwise(cumulative)), 0)
