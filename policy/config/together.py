"""What settings of different sections must agree on; each problem says what would happen."""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from policy.config import endpoints

if TYPE_CHECKING:
    from policy.config.file import Config

_BUCKET = re.compile(r"(?P<scheme>gs|s3)://[a-z0-9][a-z0-9._-]+(/[^/\s]+)*/?")
_ROOTS = {"gcp": ("gs",), "kubernetes": ("s3", "gs")}


def problems(config: "Config") -> Iterator[str]:
    """Everything that does not fit together, one line each."""
    for check in _CHECKS:
        yield from check(config)


def _place_has_its_section(config: "Config") -> Iterator[str]:
    places = {"local": config.local, "gcp": config.gcp, "kubernetes": config.kubernetes}
    found = [name for name, section in places.items() if section is not None]
    if found != [config.place]:
        yield (
            f"place (={config.place}) needs the section {config.place!r} and no other place's; "
            f"found {found}"
        )


def _root_can_be_reached(config: "Config") -> Iterator[str]:
    bucket = _BUCKET.fullmatch(config.root)
    if not bucket and ("://" in config.root or not _is_path(config.root)):
        yield f"root (={config.root!r}) must be a folder, gs://BUCKET/… or s3://BUCKET/…"
        return
    wanted = _ROOTS.get(config.place)
    if wanted and not (bucket and bucket["scheme"] in wanted):
        schemes = " or ".join(f"{scheme}://BUCKET/…" for scheme in wanted)
        yield (
            f"root (={config.root}) must be {schemes} for place: {config.place}; its jobs and "
            "servers could not read it"
        )


def _scratch_may_vanish(config: "Config") -> Iterator[str]:
    if "://" in config.scratch or not _is_path(config.scratch):
        yield f"scratch (={config.scratch!r}) must be a folder on this machine"
        return
    scratch, root = (
        PurePosixPath(posixpath.normpath(folder)) for folder in (config.scratch, config.root)
    )
    if root.is_relative_to(scratch) and "://" not in config.root:
        yield (
            f"scratch (={config.scratch}) holds root (={config.root}); scratch may vanish at "
            "any time, and the ledger with it"
        )


def _computes_there(config: "Config") -> Iterator[str]:
    compute, model = config.compute, config.model
    if config.place == "local" and (compute.machine != "local" or compute.spot):
        yield (
            f"compute.machine (={compute.machine}) and compute.spot (={compute.spot}) must be "
            "'local' and false for place: local"
        )
    for name, value in (("strategy", "fsdp"), ("precision", "16-mixed")):
        if not compute.accelerators and getattr(model, name) == value:
            yield f"model.{name} (={value}) needs compute.accelerators"


def _signs_there(config: "Config") -> Iterator[str]:
    if config.signing.private_key == "made-here" and config.place != "local":
        yield "signing.private_key (=made-here) is for place: local only"


def _ends_in_production(config: "Config") -> Iterator[str]:
    yield from endpoints.problems(config.endpoints)


def _keeps_checkpoints(config: "Config") -> Iterator[str]:
    every_s, timeout_s = config.checkpointing.every_s, config.compute.timeout_s
    if every_s >= timeout_s:
        yield (
            f"checkpointing.every_s (={every_s:g}) is not below compute.timeout_s "
            f"(={timeout_s:g}): a training that is killed would begin anew"
        )


def _keeps_its_tokens(config: "Config") -> Iterator[str]:
    tokens, scratch = (
        PurePosixPath(posixpath.normpath(path))
        for path in (config.serving.tokens, config.scratch)
    )
    if config.serving.tokens and tokens.is_relative_to(scratch):
        yield (
            f"serving.tokens (={tokens}) lies in scratch (={scratch}), which may vanish at any "
            "time: nobody would be let in"
        )


def _endpoints_have_ports(config: "Config") -> Iterator[str]:
    if config.local is None:
        return
    if set(config.local.endpoints) != set(config.endpoints):
        yield (
            f"local.endpoints has ports for {sorted(config.local.endpoints)}, but the "
            f"endpoints are {sorted(config.endpoints)}"
        )


def _is_path(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


_CHECKS: tuple[Callable[["Config"], Iterator[str]], ...] = (
    _place_has_its_section,
    _root_can_be_reached,
    _scratch_may_vanish,
    _computes_there,
    _signs_there,
    _ends_in_production,
    _endpoints_have_ports,
    _keeps_checkpoints,
    _keeps_its_tokens,
)
