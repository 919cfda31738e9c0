"""JSON files larger than memory, read one element at a time.

The official files are one huge array or object each. `json` wants them whole and needs
about eight times their size; here only one element and one block of the file are held.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from model.program.errors import BadInput

Json = Any  # a JSON value as `json` gives it; whoever reads it checks it

_BLOCK = 1 << 20  # characters read at once
_ELEMENT_MAX = 1 << 24  # characters of one element; a longer one is a broken file
_TAIL = 64  # a number that ends this near to the end of the block may go on after it


def elements(path: Path, key: str | None = None) -> Iterator[Json]:
    """The elements of the array in `path`: the whole file, or what stands under `key`.

    Raises:
        BadInput: no such file, not JSON, not UTF-8, or no array there.
    """
    with _opened(path) as reader:
        if key is None:
            yield from reader.array()
        else:
            yield from _under(key, reader, path)
        reader.end()


def entries(path: Path) -> Iterator[tuple[str, Json]]:
    """Keys and values of the object in `path`. Raises BadInput as `elements` does."""
    with _opened(path) as reader:
        for name in reader.names():
            yield name, reader.value()
        reader.end()


def _under(key: str, reader: "_Reader", path: Path) -> Iterator[Json]:
    seen: list[str] = []
    for name in reader.names():
        if name == key and key not in seen:
            yield from reader.array()
        else:
            reader.skip()
        seen.append(name)
    if seen.count(key) != 1:
        raise BadInput(f"{path} has the keys {seen}", expected=f"one array {key!r}")


def _opened(path: Path) -> "_Reader":
    try:
        return _Reader(path, path.open(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}", expected="a JSON file"
        ) from error


class _Reader:
    """A cursor over the text of one file."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._before = "", 0, 0
        self._ended = False
        self._decode = json.JSONDecoder().raw_decode

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def array(self) -> Iterator[Json]:
        """Each element of the array that starts here."""
        self._expect("[")
        if self._next() != "]":
            yield self.value()
            while self._next() == ",":
                self._at += 1
                yield self.value()
        self._expect("]")

    def names(self) -> Iterator[str]:
        """Each key of the object that starts here; read or skip the value in between."""
        self._expect("{")
        if self._next() != "}":
            yield self._key()
            while self._next() == ",":
                self._at += 1
                yield self._key()
        self._expect("}")

    def value(self) -> Json:
        """The value that starts here, whole."""
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._at > _ELEMENT_MAX:
                    self._fail(error.msg, self._before + error.pos)
            except RecursionError:
                self._fail("nested too deeply", self._before + self._at)
            else:
                if self._ended or end < len(self._text) - _TAIL:
                    self._at = end
                    return value
            self._fill()

    def skip(self) -> None:
        """Step over the value that starts here without holding it, if it is an array."""
        if self._next() != "[":
            self.value()
            return
        for _ in self.array():
            pass

    def end(self) -> None:
        if self._next():
            self._fail("something follows the end", self._before + self._at)

    def _key(self) -> str:
        key = self.value() if self._next() == '"' else None
        if not isinstance(key, str):
            self._fail("a key is not a string", self._before + self._at)
        self._expect(":")
        return key

    def _expect(self, character: str) -> None:
        if self._next() != character:
            self._fail(f"expecting {character!r}", self._before + self._at)
        self._at += 1

    def _next(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._fill()

    def _fill(self) -> None:
        """Read on; each time as much again as is held, so that a long element stays cheap."""
        kept = self._text[self._at :]
        try:
            block = self._file.read(max(_BLOCK, len(kept)))
        except UnicodeDecodeError as error:
            raise BadInput(f"{self._path} is not UTF-8: {error}") from error
        self._before += self._at
        self._text, self._at, self._ended = kept + block, 0, not block

    def _fail(self, reason: str, position: int) -> NoReturn:
        raise BadInput(
            f"{self._path} is not the expected JSON: {reason} at character {position}",
            do="unpack or download the file again",
        )
