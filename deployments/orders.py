"""What no endpoint of any place can do, found before anything is changed."""

from collections.abc import Collection, Mapping

from deployments import Desired
from policy.errors import EndpointError

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


def require_possible(endpoint: str, desired: Desired) -> None:
    """Raises EndpointError if `desired` can never be carried out, by whichever place."""
    versions = [release.version for release in desired.releases]
    _require_plain(endpoint, versions)
    _require_deployed(endpoint, versions, desired)
    _require_sum(endpoint, desired.weights)
    _require_mirrors(endpoint, desired)


def _require_plain(endpoint: str, versions: Collection[str]) -> None:
    for version in versions:
        if not version or set(version) - _LETTERS:
            raise _refusal(
                endpoint,
                f"version {version!r} cannot stand in a file's name and a route",
                "lower-case letters, digits, dots, dashes, underscores",
            )
    if len(set(versions)) < len(versions):
        raise _refusal(endpoint, f"a version is named twice in {[*versions]}", "each once")


def _require_deployed(endpoint: str, versions: Collection[str], desired: Desired) -> None:
    fallback = [desired.fallback] if desired.fallback is not None else []
    for version in (*desired.weights, *fallback, *desired.mirror):
        if version not in versions:
            raise _refusal(
                endpoint,
                f"{version} is not among the desired releases",
                f"one of {[*versions]}",
            )


def _require_sum(endpoint: str, weights: Mapping[str, int]) -> None:
    if weights and (sum(weights.values()) != 100 or min(weights.values()) < 0):
        raise _refusal(
            endpoint,
            f"weights {dict(weights)} add up to {sum(weights.values())}",
            "percentages that add up to 100, or none at all",
        )


def _require_mirrors(endpoint: str, desired: Desired) -> None:
    for version, percent in desired.mirror.items():
        if not 0 <= percent <= 100:
            raise _refusal(endpoint, f"mirror {percent} % to {version}", "0 to 100 %")
        if percent and (not desired.weights or desired.weights.get(version)):
            raise _refusal(
                endpoint,
                f"{version} cannot be mirrored to, the split is {dict(desired.weights)}",
                "a version without weight, beside one that has some",
            )


def _refusal(endpoint: str, found: str, expected: str) -> EndpointError:
    return EndpointError(
        f"endpoint {endpoint}: {found}", expected=expected, holds="nothing was changed"
    )
