"""The words that Envoy's configuration for one endpoint is written in.

The configuration is made of values alone: listener.py, clusters.py and routes.py turn
servers and a split into JSON and neither read nor write. The listener stands in the
bootstrap and lasts; clusters (CDS) and routes (RDS) are files that Envoy watches.

    listener  ->  x-arr-version: V   ->  cluster V              operators; never counted
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
from pathlib import Path
from typing import Any

from policy.counts import LATENCY_EDGES_S

Json = dict[str, Any]  # an Envoy message in its JSON form

MARKS = "arr-coc"  # the namespace of our own metadata on clusters, servers and routes
PIN_HEADER = "x-arr-version"
PREDICT_ROUTE = "/predict"
HEALTH_ROUTE = "/health"
METRICS_ROUTE = "/metrics"
ATTEMPT_HEADER = "x-envoy-attempt-count"
CODING_HEADER = "x-arr-coding"  # how a request is sent: in chunks, if there is one
ADMIN_CLUSTER = "admin"
REQUEST_TIMEOUT_S = 20
SMALL_BYTES_MAX = 32 * 2**10  # of a request that is not counted among the large ones
WORKERS = 2  # threads of one Envoy
EDGES_US = tuple(edge * 1e6 for edge in LATENCY_EDGES_S)
TYPES = "type.googleapis.com/envoy"


@dataclass(frozen=True)
class Doors:
    """Where one Envoy listens: clients at a port, who may do more at sockets of their own.

    Whoever can open a file of this user's is an operator: what is ours asks there, at the same
    routes, without a token and without a limit. At the port an operator needs a token, so where
    none are asked for nobody names a version or reads /metrics there.
    """

    port: int
    operators: Path
    admin: Path


@dataclass(frozen=True)
class Server:
    """A version with its server processes, each at a unix socket of its own."""

    version: str
    digest: str
    sockets: tuple[str, ...]


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
    """What stands between the clients and the servers; the defaults guard little but size.

    `tokens_file`: requests need a bearer token of those in it; "" for none. `accepted`: role
    and name by the SHA-256 of each, as the routes carry them. `rate_per_s`: more get 429; 0 for
    no limit. `sticky_header`: equal values keep their version as long as its weight does not
    shrink; "" for none. For the others see policy/config/serving.py.
    """

    tokens_file: str = ""
    accepted: Mapping[str, str] = field(default_factory=dict)
    rate_per_s: int = 0
    sticky_header: str = ""
    request_bytes_max: int = 8 * 2**20
    unfinished_bytes_max: int = 64 * 2**20
    request_s_max: float = 10
    connections_max: int = 4000

    @property
    def tokens(self) -> bool:
        """Whether requests need a token."""
        return bool(self.tokens_file)


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


def own_socket(path: Path | str) -> Json:
    """The address of a unix socket; where Envoy makes it, for its owner alone."""
    return {"pipe": {"path": str(path), "mode": 0o600}}
