"""How a configuration is read, and what is said of a wrong one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from policy.config import strict_yaml
from policy.config.file import Config
from policy.errors import ConfigError

_SHOWN_MAX = 200  # characters of a value
_LINES_MAX, _LINE_MAX = 50, 1000  # wrong settings told at once, characters of each
_KEY_LENGTH = 64  # a text as long as this below `signing` may be a key
_SECRET = re.compile("key|token|secret|password", re.IGNORECASE)


def load_config(path: Path) -> Config:
    """Read and validate one file. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"no configuration at {path}", expected="a file such as deployments/local.yaml"
        )
    try:
        with path.open("rb") as file:
            data = file.read(strict_yaml.BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(str(path), error.strerror or repr(error)) from error
    # One byte too many may lie inside a character; such a file is refused for its length.
    cut = len(data) > strict_yaml.BYTES_MAX
    try:
        return parse_config(data.decode(errors="replace" if cut else "strict"), str(path))
    except UnicodeDecodeError as error:
        raise _unreadable(str(path), f"byte {error.start} is not UTF-8") from error


def parse_config(text: str, name: str) -> Config:
    """Validate one YAML text; `name` stands in errors.

    Raises:
        ConfigError: naming each wrong setting by its dotted path, with the value found.
    """
    try:
        tree = strict_yaml.read(text)
    except ValueError as error:
        raise _unreadable(name, str(error)) from error
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        wrong = [f"  {_cut(line, _LINE_MAX)}" for line in _lines(error, tree)]
        more = [f"  and {len(wrong) - _LINES_MAX} more"] if len(wrong) > _LINES_MAX else []
        told = "\n".join([*wrong[:_LINES_MAX], *more])
        raise ConfigError(
            f"{name} has {len(wrong)} wrong setting(s):\n{told}\n",
            holds="nothing was started",
            do=f"correct {name}; deployments/schema.json lists every setting",
        ) from error


def with_model(config: Config, **changes: object) -> Config:
    """The configuration with other values in `model`, validated; None leaves one as it is.

    Raises:
        ConfigError: as for a file.
    """
    wanted = {name: value for name, value in changes.items() if value is not None}
    record = config.model_dump(mode="json")
    changed = {**record, "model": {**record["model"], **wanted}}
    text = yaml.safe_dump(changed, sort_keys=False)  # the order of the endpoints matters
    return parse_config(text, "the configuration with other model settings")


def _unreadable(name: str, problem: str) -> ConfigError:
    return ConfigError(
        f"{name} cannot be read: {_cut(problem, _LINE_MAX)}",
        holds="nothing was started",
        do=f"correct {name}",
    )


def _lines(error: ValidationError, tree: object) -> Iterator[str]:
    """One line for each wrong setting, with all that it might have been."""
    messages: dict[str, list[str]] = {}
    for found in error.errors(include_url=False):
        path = _path(found["loc"], tree)
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "value_error" and isinstance(found["input"], Mapping):
            for problem in message.split("\n"):
                messages[f"{path}.{problem}" if path else problem] = []
            continue
        subject = f"{path or '(the whole file)'}{_value(found, path)}"
        messages.setdefault(subject, []).append(message)
    for subject, said in messages.items():
        yield f"{subject}: {' or '.join(said)}" if said else subject


def _path(location: Sequence[int | str], tree: object) -> str:
    """The dotted path without pydantic's own words for the members of a union."""
    parts: list[str] = []
    for part in location:
        if isinstance(tree, Mapping) and isinstance(part, str) and part != "[key]":
            parts.append(part if part.isprintable() else ascii(part))
            tree = tree.get(part)
        elif isinstance(tree, Sequence) and isinstance(part, int):
            parts.append(str(part))
            tree = tree[part] if part < len(tree) else None
        else:
            break
    return ".".join(parts)


def _value(found: Any, path: str) -> str:
    """The value as it was written, in brackets; what may be a secret is not told."""
    value, name = found["input"], path.rpartition(".")[2]
    if found["type"] == "missing":
        return ""
    text = repr(value)
    if "PRIVATE KEY" in text:
        return " (=a private key, not shown here)"
    unknown = found["type"] == "extra_forbidden" and _SECRET.search(name)
    if unknown or (path.startswith("signing") and len(text) > _KEY_LENGTH):
        return " (not shown here: it may be a secret)"
    return f" (={_cut(text, _SHOWN_MAX)})"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"
