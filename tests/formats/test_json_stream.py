"""Reading one element at a time gives what reading the whole file gives."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.formats import json_stream
from model.program.errors import BadInput

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DUMPS = st.sampled_from(
    [{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}]
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("stream") / "file.json"


@pytest.fixture(scope="module", autouse=True)
def blocks_of_a_few_characters():
    """So that every token is cut somewhere."""
    before = json_stream._BLOCK
    json_stream._BLOCK = 5
    yield
    json_stream._BLOCK = before


def save(path, value, **options):
    text = json.dumps(value, **options)
    path.write_text(text.encode("utf-8", "replace").decode(), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


@settings(deadline=None, max_examples=60)
@given(value=st.lists(VALUES, max_size=6), options=DUMPS)
def test_elements_of_an_array(path, value, options):
    value = save(path, value, **options)
    assert list(json_stream.elements(path)) == value


@settings(deadline=None, max_examples=60)
@given(value=st.dictionaries(st.text(), VALUES), wanted=st.lists(VALUES), options=DUMPS)
def test_elements_under_a_key_and_all_entries(path, value, wanted, options):
    value = save(path, {**value, "wanted": wanted}, **options)
    assert list(json_stream.elements(path, "wanted")) == value["wanted"]
    assert dict(json_stream.entries(path)) == value


@settings(deadline=None, max_examples=60)
@given(value=st.lists(VALUES, max_size=4), share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_anywhere_is_refused(path, value, share):
    save(path, value)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadInput, match=r"is not the expected JSON|is not UTF-8"):
        list(json_stream.elements(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1 2]", r"expecting '\]' at character 3"),
        ("[1,]", r"Expecting value at character 3"),
        ("[1] [2]", r"something follows the end at character 4"),
        ('{"a": 1, "a" 2}', r"expecting '\['"),
        ("[" * 100_000, r"nested too deeply"),
        ("", r"expecting '\[' at character 0"),
    ],
)
def test_says_where_the_file_breaks(path, text, message):
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        list(json_stream.elements(path))


def test_an_array_given_twice_is_refused(path):
    path.write_text('{"a": [1], "b": 2, "a": [3]}')
    with pytest.raises(BadInput, match="expected one array 'a'"):
        list(json_stream.elements(path, "a"))


def test_an_element_without_end_is_given_up(path, monkeypatch):
    monkeypatch.setattr(json_stream, "_ELEMENT_MAX", 1000)
    path.write_text('["' + "x" * 100_000 + '"]')
    taken = []
    with pytest.raises(BadInput, match="Unterminated string"):
        taken.extend(json_stream.elements(path))
    assert taken == []
