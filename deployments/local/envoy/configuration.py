"""The words that Envoy's configuration for one endpoint is written in.

The configuration is made of values alone: listener.py, clusters.py and routes.py turn
servers and a split into JSON and neither read nor write. The listener stands in the
bootstrap and lasts; clusters (CDS) and routes (RDS) are files that Envoy watches.

    listener  ->  x-arr-version: V   ->  cluster V              pinned: never counted
              ->  by weight          ->  cluster V/F = [V, F]   V, and F where V fails
                                     ->  cluster V/  = [V]      V without a fallback
              ->  copies             ->  cluster /V  = [V]      nobody hears its answers

So the cluster alone tells which version the split chose and what for; both stand in its
metadata, by which requests are counted.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policy.counts import LATENCY_EDGES_S

Json = dict[str, Any]  # an Envoy message in its JSON form

MARKS = "arr-coc"  # the namespace of our own metadata on clusters, servers and routes
PIN_HEADER = "x-arr-version"
PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/health"
METRICS_ROUTE = "/metrics"
ATTEMPT_HEADER = "x-envoy-attempt-count"
ADMIN_CLUSTER = "admin"
TOKENS = "ARR_COC_TOKENS"  # an environment variable: bearer tokens, separated by commas
REQUEST_TIMEOUT_S = 20
EDGES_US = tuple(edge * 1e6 for edge in LATENCY_EDGES_S)
TYPES = "type.googleapis.com/envoy"


@dataclass(frozen=True)
class Server:
    """A version with its server processes, one per port."""

    version: str
    digest: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """Percent of the requests per version; `fallback` answers where another one fails.

    `mirror` says which version gets copies of how many percent of the requests.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    fallback: str = ""
    mirror: Mapping[str, int] = field(default_factory=dict)

    @property
    def heard(self) -> frozenset[str]:
        """Every version that requests may reach without naming it."""
        fallback = {self.fallback} if self.fallback else set()
        return frozenset({*self.weights, *self.mirror, *fallback})

    def cluster(self, version: str) -> str:
        return split_name(version, "" if self.fallback == version else self.fallback)

    def within(self, versions: Collection[str]) -> "Split":
        """The split without versions that are not among these; they have no weight in it."""
        mirror = {
            version: share for version, share in self.mirror.items() if version in versions
        }
        fallback = self.fallback if self.fallback in versions else ""
        return Split(self.weights, fallback, mirror)


@dataclass(frozen=True)
class Guard:
    """What stands between the clients and the servers; the defaults guard nothing but size.

    `tokens`: requests need one of the bearer tokens in ARR_COC_TOKENS. `rate_per_s`: more
    get 429; 0 for no limit. `sticky_header`: equal values keep their version as long as its
    weight does not shrink; "" for none.
    """

    tokens: bool = False
    rate_per_s: int = 0
    sticky_header: str = ""
    request_bytes_max: int = 16 * 2**20


def fingerprint(resource: Mapping[str, Any]) -> str:
    """The content mark of a resource; Envoy shows it again in its config_dump."""
    return resource["metadata"]["filter_metadata"][MARKS]["content"]


def split_name(version: str, fallback: str) -> str:
    """The cluster of what the weights give `version`; "" for no fallback."""
    return f"{version}/{fallback}"


def mirror_name(version: str) -> str:
    """The cluster of the copies that `version` gets."""
    return f"/{version}"


def stat_name(version: str) -> str:
    """The version's name in Envoy's statistics, where a dot would part the name."""
    return version.replace(".", "_")


def typed(kind: str, resource: Json, marks: Mapping[str, str] | None = None) -> Json:
    """Add the type, `marks` and one of the content, by which its arrival is confirmed."""
    text = json.dumps([resource, marks], sort_keys=True)
    content = hashlib.sha256(text.encode()).hexdigest()
    metadata = {"filter_metadata": {MARKS: {**(marks or {}), "content": content}}}
    return {"@type": f"{TYPES}.{kind}", **resource, "metadata": metadata}


def discovery(resources: Sequence[Json]) -> Json:
    text = json.dumps(resources, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"version_info": version, "resources": [*resources]}


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
