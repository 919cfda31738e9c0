"""The place of a configuration, connected once per process."""

from deployments import Place, connect
from policy.config import Config

_PLACES: dict[str, Place] = {}


def place_of(config: Config) -> Place:
    """The place that `config` names; the same one for the same configuration."""
    key = config.model_dump_json()
    if key not in _PLACES:
        _PLACES[key] = connect(config)
    return _PLACES[key]
