"""Bodies of requests: what is read, what is refused, and that refusing costs little."""

import base64
import json
import time

import pytest

from model.program.errors import BadInput
from model.serving.body import IMAGE_BYTES_MAX, Instance, parse

MANY = 16_000_000  # bytes
SECONDS_MAX = 1.0  # of the processor; a parser of any JSON took up to 10 and a GB
QUESTION = 'what is "it" \\ é 😀?'


def instance(image=b"hello", question=QUESTION):
    return {"image": base64.b64encode(image).decode(), "question": question}


WRITTEN = {
    "compact": lambda value: json.dumps(value, separators=(",", ":")),
    "as it is": lambda value: json.dumps(value, ensure_ascii=False),
    "over many lines": lambda value: json.dumps(value, indent=8),
    "as PHP does": lambda value: json.dumps(value).replace("/", "\\/"),
    "as .NET does": lambda value: json.dumps(value).replace("+", "\\u002B"),
    "with a byte order mark": lambda value: "\ufeff" + json.dumps(value),
}


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize("size", [0, 1, 5, 12_287, 12_288, 12_289, 1_000_000, IMAGE_BYTES_MAX])
def test_however_a_client_writes_it_the_same_is_read(way, size):
    image = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    given = [instance(image), instance()]
    found = parse(WRITTEN[way]({"instances": given}).encode(), 64)
    assert found == [Instance(image, QUESTION), Instance(b"hello", QUESTION)]


@pytest.mark.parametrize("count", [64, 65, 128])
def test_as_many_instances_as_are_allowed_are_read(count):
    body = json.dumps({"instances": [instance(question="x" * 1000)] * count}, indent=4).encode()
    if count == 64:
        assert len(parse(body, 64)) == 64
    else:
        with pytest.raises(BadInput, match=f"{count} instances; expected 1 to 64"):
            parse(body, 64)


COSTLY = {
    "tiny objects": b'{"instances":[' + b"{}," * (MANY // 3) + b"{}]}",
    "tiny texts": b'""' * (MANY // 2),
    "tiny numbers": b"[" + b"1," * (MANY // 2) + b"1]",
    "nothing but brackets": b"[" * MANY,
    "nothing but space": b" " * MANY,
    "a number of many digits": b'{"instances":' + b"9" * MANY + b"}",
    "a text of escaped quotes": b'"' + b'\\"' * (MANY // 2) + b'"',
    "a text of backslashes": b'"' + b"\\" * MANY + b'"',
    "a text instead of instances": b'{"instances":"' + b"x" * MANY + b'"}',
    "a long key": b'{"instances":[{"' + b"x" * MANY + b'":"","question":"x"}]}',
    "a text without end": b'{"instances":[{"image":"' + b"QUJD" * (MANY // 4),
    "a long image": b'{"instances":[{"image":"' + b"QUJD" * (MANY // 4)
    + b'","question":"x"}]}',
    "an escaped image": b'{"instances":[{"image":"' + b"\\u0041" * (MANY // 6)
    + b"\\u0042" + b'","question":"x"}]}',
    "padding everywhere": b'{"instances":[{"image":"' + b"QQ==" * (MANY // 8)
    + b'","question":"x"}]}',
    "a long question": b'{"instances":[{"image":"","question":"' + b"x" * MANY + b'"}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_body_is_refused_cheaply(name):
    start = time.thread_time()
    with pytest.raises(BadInput) as raised:
        parse(COSTLY[name], 64)
    assert time.thread_time() - start < SECONDS_MAX
    assert len(str(raised.value)) < 300


REFUSED = {
    "a key twice": b'{"instances": [], "instances": []}',
    "a key of an instance twice": b'{"instances":[{"image":"","image":"","question":"x"}]}',
    "NaN": b'{"instances": [NaN]}',
    "a number that looks like one of ours": b'{"instances":[{"image":0,"question":"x"}]}',
    "UTF-16": json.dumps({"instances": [instance()]}).encode("utf-16"),
    "padding in the middle": json.dumps(
        {"instances": [{"image": "QQ==QUJD", "question": "x"}]}
    ).encode(),
    "padding at the seam of two parts": json.dumps(
        {"instances": [{"image": "A" * ((1 << 20) - 2) + "==" + "A" * 400, "question": "x"}]}
    ).encode(),
    "more behind the end": b'{"instances": []} {"instances": []}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name):
    with pytest.raises(BadInput):
        parse(REFUSED[name], 64)
