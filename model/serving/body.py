"""Read the body of a request: JSON of a few short texts and of pictures, at little cost.

A parser of any JSON holds up all threads until it is through: 6 MB of `{}` take 0.1 s and a
GB. So long texts are cut out first, where a search for quotes is all that it takes, and what
is left is parsed only if it is about as long as a request's is: up to twice as long, so that
somebody who sends a few instances too many is told their number.
"""

import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

from model.program.errors import BadInput

IMAGE_BYTES_MAX = 10_000_000
QUESTION_CHARACTERS_MAX = 1000
EXPECTED = '{"instances": [{"image": base64, "question": text}, …]}'
_TEXTS = 4  # of an instance: two keys and two values
_SYMBOLS = 8  # of an instance, with its comma: {:,:},
_LONG = 16_384  # bytes: longer than a question, all of it escaped
_SLASHES_MAX = 2 * QUESTION_CHARACTERS_MAX + 2
_SPACE_MAX = 8_192  # bytes outside of texts, of an instance
_AT_ONCE = 1 << 20  # characters of base64; a multiple of four
_SPACE, _SYMBOL = b" \t\r\n", b"{}[]:,"


@dataclass(frozen=True)
class Instance:
    """One image with one question, as received."""

    image: bytes
    question: str


def parse(body: bytes, instances_max: int) -> list[Instance]:
    """The instances of a request's body. Raises BadInput naming what is wrong, and where."""
    rest, long_texts = _cut(body.removeprefix(b"\xef\xbb\xbf"), 2 * instances_max)
    try:
        request = json.loads(rest, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadInput("the body is not JSON", expected=EXPECTED) from error
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise BadInput("the body has no list 'instances'", expected=EXPECTED)
    instances = request["instances"]
    if not 1 <= len(instances) <= instances_max:
        raise BadInput(f"{len(instances)} instances", expected=f"1 to {instances_max}")
    return [_instance(one, long_texts, f"instances[{n}]") for n, one in enumerate(instances)]


def _cut(body: bytes, instances_max: int) -> tuple[bytes, Sequence[bytes]]:
    """The JSON with a number in place of each long text, and these texts by number.

    Raises BadInput for more texts or symbols than a request has, and for what is neither:
    numbers, true, null. So the number of a long text cannot be mistaken.
    """
    pieces, symbols, long_texts = [], [], []
    at = 0
    for _ in range(_TEXTS * instances_max + 2):
        start = body.find(b'"', at)
        if start < 0:
            break
        end = _end_of_text(body, start)
        text = body[start:end]
        if len(text) > _LONG:
            long_texts.append(text)
            text = b"%d" % len(long_texts[:-1])
        symbols.append(body[at:start])
        pieces += (symbols[-1], text)
        at = end
    else:
        raise _too_much("texts", instances_max)
    symbols.append(body[at:])
    _check_symbols(symbols, instances_max)
    return b"".join((*pieces, symbols[-1])), long_texts


def _end_of_text(body: bytes, start: int) -> int:
    """Where the text that begins at a quote is over; the end of the body if it never is."""
    end = start
    for _ in range(QUESTION_CHARACTERS_MAX + 2):
        end = body.find(b'"', end + 1)
        if end < 0:
            return len(body)
        before = body[max(start + 1, end - _SLASHES_MAX) : end]
        slashes = len(before) - len(before.rstrip(b"\\"))
        if slashes == _SLASHES_MAX:
            break
        if slashes % 2 == 0:
            return end + 1
    raise BadInput(
        "the body has a text of too many quotes or backslashes",
        expected=f"a question of at most {QUESTION_CHARACTERS_MAX} characters",
    )


def _check_symbols(pieces: Sequence[bytes], instances_max: int) -> None:
    """`pieces` are all that stands outside of texts."""
    if sum(map(len, pieces)) > _SPACE_MAX * instances_max:
        raise _too_much("symbols and space", instances_max)
    symbols = b"".join(pieces).translate(None, _SPACE)
    if other := symbols.translate(None, _SYMBOL):
        raise BadInput(
            f"the body has {other[:20].decode('latin-1')!r} outside of texts", expected=EXPECTED
        )
    if len(symbols) > _SYMBOLS * (instances_max + 2):
        raise _too_much("objects, lists and commas", instances_max)


def _too_much(what: str, instances_max: int) -> BadInput:
    return BadInput(
        f"the body has more {what} than {instances_max} instances have", expected=EXPECTED
    )


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadInput("an object of the body has a key twice", expected=EXPECTED)
    return found


def _instance(value: object, long_texts: Sequence[bytes], name: str) -> Instance:
    if not isinstance(value, dict) or value.keys() != {"image", "question"}:
        raise BadInput(f"{name} has the wrong keys", expected="image and question")
    image, question = value["image"], value["question"]
    if not isinstance(question, str) or not 1 <= len(question) <= QUESTION_CHARACTERS_MAX:
        raise BadInput(
            f"{name}.question",
            expected=f"a string of 1 to {QUESTION_CHARACTERS_MAX} characters",
        )
    text = _unescaped(long_texts[image]) if isinstance(image, int) else image
    if not isinstance(text, str | bytes) or len(text) > IMAGE_BYTES_MAX * 4 // 3 + 4:
        raise BadInput(f"{name}.image", expected=f"base64 of at most {IMAGE_BYTES_MAX} bytes")
    try:
        return Instance(_decoded(text), question)
    except ValueError as error:
        raise BadInput(f"{name}.image is not base64 ({error})") from error


def _unescaped(quoted: bytes) -> str | bytes:
    """A long text without its quotes; some clients escape its + and /. Raises BadInput."""
    if b"\\" not in quoted:
        return quoted[1:-1]
    try:
        return json.loads(quoted)
    except ValueError as error:
        raise BadInput("the body is not JSON", expected=EXPECTED) from error


def _decoded(text: str | bytes) -> bytes:
    """Part by part, so that other threads may go on: 10 MB at once would take 20 ms."""
    parts = []
    for at in range(0, len(text), _AT_ONCE):
        parts.append(binascii.a2b_base64(text[at : at + _AT_ONCE], strict_mode=True))
        if at + _AT_ONCE < len(text) and len(parts[-1]) < _AT_ONCE // 4 * 3:
            raise ValueError("padding before the end")
    return b"".join(parts)
