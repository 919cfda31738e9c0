"""What the versions of the local endpoints answered: Envoy's counters, and the known truth."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from deployments import Reading
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.configuration import EDGES_US
from deployments.local.envoy.counting import TOO_MANY
from deployments.local.labels import Answers
from deployments.local.layout import Layout
from policy.counts import Compared, Counts, Labelled, Sample
from policy.errors import EndpointSilent, StoreError, Unsupported


class EnvoyTelemetry:
    """`deployments.Telemetry` on this machine.

    A request fails by the first attempt: a 5xx, a reset, a time-out, a refused connection, or
    no server of the chosen version that could take it. Requests that their client gave up,
    however late, are left out: only our own time-out says that a version was too slow. So are
    those that a server refused with 429, for too many wait. Times
    are those of answered first attempts, from the first byte sent to the last received; Envoy
    adds them up once a second. Mirrored requests count for the version that got the copy.
    """

    def __init__(self, layout: Layout, admins: Mapping[str, Admin]) -> None:
        self._admins = admins
        self._answers = {name: Answers(layout.answers(name)) for name in admins}

    def read(self, endpoint: str, versions: Sequence[str]) -> Reading:
        admin, now = self._admin(endpoint), datetime.now(UTC)
        epoch = admin.started()
        stats = admin.stats(r"^endpoint\.request(s|_us)\.version\.")
        if epoch != admin.started():
            raise EndpointSilent(
                f"endpoint {endpoint}: Envoy began anew while it was read",
                holds="nothing is counted twice",
                do="read again",
            )
        try:
            known = self._answers[endpoint].read()
        except StoreError as error:
            raise EndpointSilent(str(error)) from error
        with admin.understanding():
            counts = {version: _counts(stats, version) for version in versions}
        samples = {
            version: Sample(
                counts=counts[version],
                labelled=known.labelled.get(version, Labelled()),
                epoch=f"{epoch} {known.epoch}",
            )
            for version in versions
        }
        compared = {v: known.compared[v] for v in versions if v in known.compared}
        return Reading(samples, complete_until=now, compared=compared)

    def record(
        self,
        endpoint: str,
        source: str,
        labels: Mapping[str, Labelled],
        compared: Mapping[str, Compared],
    ) -> None:
        self._admin(endpoint)
        self._answers[endpoint].record(source, labels, compared)

    def _admin(self, endpoint: str) -> Admin:
        if endpoint not in self._admins:
            raise Unsupported(
                f"there is no endpoint {endpoint!r}", expected=f"one of {list(self._admins)}"
            )
        return self._admins[endpoint]


def _counts(stats: Sequence[Mapping[str, Any]], version: str) -> Counts:
    pattern = re.compile(
        # `by` is empty where no server at all could take the attempt.
        rf"endpoint\.requests\.version\.{re.escape(version)}\.use\.(?P<use>split|mirror)"
        r"\.by\.(?P<by>.*)\.code\.(?P<code>\d+)\.flags\.(?P<flags>[^.]+)"
    )
    requests, errors = 0, 0
    for stat in stats:
        if (named := pattern.fullmatch(stat.get("name", ""))) and not _left_out(named, version):
            count = int(stat["value"])
            requests += count
            errors += count if _failed(named, version) else 0
    return Counts(requests=requests, errors=errors, latency=_latency(stats, version))


def _left_out(named: re.Match[str], version: str) -> bool:
    refused = int(named["code"]) == TOO_MANY and named["by"] == version
    return refused or _given_up(named)


def _given_up(named: re.Match[str]) -> bool:
    """Whether the client did not wait for the answer, or its time-out stands elsewhere.

    An attempt that ends without a reason was called off: by its client, or by the time-out of
    the whole request, which counts as a 504 of its own. Nobody waits for a mirror's answer, so
    there it can only have been the time-out.
    """
    called_off = named["code"] == "0" and named["flags"] in ("DC", "-")
    return called_off and named["use"] == "split"


def _failed(named: re.Match[str], version: str) -> bool:
    code = int(named["code"])
    return named["by"] != version or code == 0 or code >= 500


def _latency(stats: Sequence[Mapping[str, Any]], version: str) -> tuple[int, ...]:
    """Answers between the edges; Envoy counts up to each edge, and no attempt takes 10 s."""
    uses = ("split", "mirror")
    names = {f"endpoint.request_us.version.{version}.use.{u}.by.{version}" for u in uses}
    upto = Counter[float]()
    for stat in stats:
        for histogram in stat.get("histograms", []):
            if histogram["name"] in names:
                for bucket in histogram["buckets"]:
                    upto[float(bucket["upper_bound"])] += int(bucket["cumulative"])
    cumulative = [0, *(upto[edge] for edge in EDGES_US)]
    return (*(after - before for before, after in pairwise(cumulative)), 0)
