"""The words that Envoy's configuration for one endpoint is written in.

The configuration is made of values alone: listener.py, clusters.py and routes.py turn
servers and a split into JSON and neither read nor write. The listener stands in the
bootstrap and lasts; clusters (CDS) and routes (RDS) are files that Envoy watches.

    listener  ->  x-arr-version: V   ->  cluster V              pinned, without fall-back
              ->  by weight          ->  cluster V/F = [V, F]   V, and F where V fails
                                     ->  cluster F              the fall-back itself
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policy.counts import LATENCY_EDGES_S

Json = dict[str, Any]  # an Envoy message in its JSON form

MARKS = "arr-coc"  # the namespace of our own metadata on clusters, servers and routes
PIN_HEADER = "x-arr-version"
PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/health"
METRICS_ROUTE = "/metrics"
ADMIN_CLUSTER = "admin"
TOKENS = "ARR_COC_TOKENS"  # an environment variable: bearer tokens, parted by commas
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

    `shadow` gets copies of `shadow_percent` of the requests; nobody sees its answers.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    fallback: str = ""
    shadow: str = ""
    shadow_percent: int = 0

    def cluster(self, version: str) -> str:
        if self.fallback in ("", version):
            return version
        return pair_name(version, self.fallback)

    def without(self, version: str) -> "Split":
        """The split without a version that has no weight in it."""
        shadow = ("", 0) if self.shadow == version else (self.shadow, self.shadow_percent)
        fallback = "" if self.fallback == version else self.fallback
        return Split(self.weights, fallback, *shadow)


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


def pair_name(version: str, fallback: str) -> str:
    """The cluster of a version whose failed attempts `fallback` makes again."""
    return f"{version}/{fallback}"


def stat_name(version: str) -> str:
    """The version's name in Envoy's statistics, where a dot would part the name."""
    return version.replace(".", "_")


def typed(kind: str, resource: Json) -> Json:
    """Add the type and a mark of the content, by which its arrival is confirmed."""
    content = hashlib.sha256(json.dumps(resource, sort_keys=True).encode()).hexdigest()
    metadata = {"filter_metadata": {MARKS: {"content": content}}}
    return {"@type": f"{TYPES}.{kind}", **resource, "metadata": metadata}


def discovery(resources: Sequence[Json]) -> Json:
    text = json.dumps(resources, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"version_info": version, "resources": [*resources]}


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
