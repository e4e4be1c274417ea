"""Data inside HTML: what goes in comes out, and nothing of it is markup."""

import base64
import gzip
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.leaderboard.page.embedding import ChunkWriter, inert_json, pack

TEXTS = ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", '"\\', "\x00", "plain"]


@given(st.lists(st.text() | st.sampled_from(TEXTS)))
def test_json_is_inert_and_comes_back(texts):
    written = inert_json({"texts": texts})
    assert not re.search("[<>&\u2028\u2029]", written)
    assert json.loads(written) == {"texts": texts}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_become_null(value):
    assert json.loads(inert_json({"a": [value, (1.5, {"b": value})]})) == {
        "a": [None, [1.5, {"b": None}]]
    }


def unpacked(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, width=16)))
def test_chunks_come_back_and_are_the_same_each_time(value):
    packed = pack(value)
    assert re.fullmatch(rb"[A-Za-z0-9+/=]*", packed)
    assert packed == pack(value)
    finite = {k: None if v in (float("inf"), -float("inf")) else v for k, v in value.items()}
    plain = json.loads(json.dumps(finite, ensure_ascii=False).encode("utf-8", "replace"))
    assert unpacked(packed) == plain


def test_a_lone_surrogate_does_not_stop_the_page():
    assert unpacked(pack(["a\ud800b"])) == ["a?b"]


def test_equal_chunks_are_written_once():
    stream = io.BytesIO()
    chunks = ChunkWriter(stream)
    assert [chunks.add(value) for value in (["a"], ["b"], ["a"])] == [0, 1, 0]
    assert chunks.add_text("raw") == 2
    lines = stream.getvalue().decode().splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        start = f'<script type="application/gzip" id="chunk-{number}">'
        assert line.startswith(start)
        assert line.endswith("</script>")
    body = lines[2].partition(">")[2].removesuffix("</script>")
    assert gzip.decompress(base64.b64decode(body)) == b"raw"
