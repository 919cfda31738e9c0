"""YAML as a configuration needs it: small, plain, and each key once.

YAML itself lets the last of two equal keys win, reads `1:30` as 90, `010` as 8 and `no` as
false, and expands a few lines of aliases to gigabytes. Here each of these is an error.
"""

import re

import yaml

BYTES_MAX = 65_536
DEPTH_MAX = 20
_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(
    r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.I
)


def read(text: str) -> object:
    """The value of one YAML document. Raises ValueError naming what is wrong, and the line."""
    if len(text.encode(errors="surrogatepass")) > BYTES_MAX:
        raise ValueError(f"it is longer than {BYTES_MAX:,} bytes, and no configuration is")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, "")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"it is not YAML: {_told(error)}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """Refuses aliases, and nesting so deep that only an attack has it."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise _at(
                event.start_mark, f"*{event.anchor} is an alias; write out what it stands for"
            )
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _at(self.peek_event().start_mark, f"nested more than {DEPTH_MAX} deep")
        node = super().compose_node(parent, index)  # type: ignore[arg-type]
        self._depth -= 1
        return node


# YAML 1.1 takes 1e-3 for a text, since it has no point.
_Loader.add_implicit_resolver(
    _TAG + "float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _check(node: yaml.Node, path: str) -> None:
    """Raises ValueError for what would be read as something else than it looks like."""
    if isinstance(node, yaml.MappingNode):
        _check_mapping(node, path)
    elif isinstance(node, yaml.SequenceNode):
        _check_tag(node, path, "seq")
        for number, item in enumerate(node.value):
            _check(item, _below(path, str(number)))
    else:
        _check_scalar(node, path)


def _check_mapping(node: yaml.MappingNode, path: str) -> None:
    _check_tag(node, path, "map")
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            shown = f"the key {key.value}" if isinstance(key, yaml.ScalarNode) else "a key"
            raise _at(key.start_mark, f"{shown} is not a text; put it in quotes or correct it")
        _check_scalar(key, path)
        name, line = _below(path, key.value), key.start_mark.line + 1
        if key.value in lines:
            raise ValueError(
                f"{name} is there twice, in line {lines[key.value]} and in line {line}; "
                "only one could count"
            )
        lines[key.value] = line
        _check(value, name)


def _check_scalar(node: yaml.Node, path: str) -> None:
    kind = _check_tag(node, path, "str", "int", "float", "bool", "null")
    node.value = text = _whole_characters(node, path)
    number = kind in ("int", "float")
    if number and not (_NUMBER.fullmatch(text) and any(map(str.isalnum, text))):
        raise _at(
            node.start_mark,
            f"{path} (={text}) would not be read as it looks; write a plain decimal number, or "
            "put a text in quotes",
        )
    if kind == "bool" and text.lower() not in yaml.SafeLoader.bool_values:
        raise _at(node.start_mark, f"{path} (={text}) is neither true nor false")


def _whole_characters(node: yaml.Node, path: str) -> str:
    """The text with pairs such as JSON's \\ud83c\\udf89 as the one character that they are."""
    try:
        return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise _at(
            node.start_mark,
            f"{path or 'a key'} has half of a surrogate pair; write the whole character",
        ) from error


def _check_tag(node: yaml.Node, path: str, *allowed: str) -> str:
    kind = node.tag.removeprefix(_TAG)
    if kind not in allowed:
        raise _at(
            node.start_mark,
            f"{path or 'the file'} is of YAML's kind {kind!r}, which no setting has; "
            "put a text in quotes",
        )
    return kind


def _at(mark: yaml.Mark | None, problem: str) -> ValueError:
    return ValueError(f"line {mark.line + 1}: {problem}" if mark else problem)


def _told(error: yaml.MarkedYAMLError) -> str:
    """Without the piece of the file that PyYAML adds: a private key may stand in it."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    parts = [part for part in (error.context, error.problem) if part]
    return where + ", ".join(parts)


def _below(path: str, name: str) -> str:
    name = name if name.isprintable() else ascii(name)
    return f"{path}.{name}" if path else name
