"""What strangers send becomes numbers, or a refusal that says what is accepted; nothing else happens."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dptrain.data import alphabet
from dptrain.release.reading import JSON, NPY, Form, Refusal

DIGITS = Form("classification", (8, 8), (0.0, 1.0), whole=False, most=4)
TEXT = Form("language", (6,), (0.0, 97.0), whole=True, most=4)
WORDS = Form("classification", (3,), (0.0, 4096.0), whole=True, most=4)
GOOD = np.linspace(0, 1, 128).reshape(2, 8, 8)


def npy(array: Any, **changes: Any) -> bytes:
    handle = io.BytesIO()
    np.save(handle, array, **changes)
    return handle.getvalue()


def with_header(text: str, data: bytes = b"") -> bytes:
    """A ``.npy`` file with any header."""
    header = text.encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def refused(form: Form, body: bytes, kind: str = JSON) -> Refusal:
    with pytest.raises(Refusal) as caught:
        form.read(body, kind)
    assert 400 <= caught.value.status < 500
    assert caught.value.accepted
    return caught.value


def read_or_refused(form: Form, body: bytes, kind: str) -> tuple[torch.Tensor, ...]:
    """The batches; none where it is refused."""
    refusal = None
    try:
        return form.read(body, kind)
    except Refusal as caught:
        refusal = caught
    assert 400 <= refusal.status < 500
    return ()


def test_json_and_npy_give_the_same_numbers():
    (from_json,) = DIGITS.read(json.dumps({"inputs": GOOD.tolist()}).encode(), "application/json; charset=utf-8")
    for kind in ("f4", "f8", ">f8"):
        (from_npy,) = DIGITS.read(npy(GOOD.astype(kind)), NPY)
        assert from_npy.dtype == torch.float32
        assert torch.equal(from_json, from_npy)
    (column_first,) = DIGITS.read(npy(np.asfortranarray(GOOD)), NPY)
    assert torch.equal(from_json, column_first)


def test_the_two_zeros_are_one_number():
    for zero in (-0.0, -1e-60):
        (negative,) = DIGITS.read(npy(np.full((1, 8, 8), zero)), NPY)
        assert not torch.signbit(negative).any()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [1, 2]}',
        b'{"inputs": [[1, 2]]}',
        b'{"other": [[1]]}',
        b'{"inputs": [[1]], "more": 1}',
        b"\xff\xfe",
        b'{"inputs": [[[NaN]]]}',
        b'{"inputs": [[[1e999]]]}',
        b"[" * 100_000,
        b'{"inputs": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_batch_in_json_is_refused(body: bytes):
    refused(DIGITS, body)


@pytest.mark.parametrize("wrong", ["0.5", True, None, [], {}, float("nan"), float("inf"), 1.1, -0.1, 10**400])
def test_one_wrong_number_is_refused(wrong: Any):
    rows = GOOD.tolist()
    rows[1][3][3] = wrong
    refused(DIGITS, json.dumps({"inputs": rows}).encode())


@pytest.mark.parametrize("form", [DIGITS, TEXT, WORDS])
def test_the_longest_json_of_a_whole_batch_is_within_what_is_read(form: Form):
    rows = np.full((form.most, *form.shape), -2.2250738585072014e-308)
    assert len(json.dumps({"tokens": rows.tolist()})) <= form.most_of_json
    assert form.worth(1) == 1
    assert form.worth(form.most_of_json) == form.worth(10**9) == form.most


@pytest.mark.parametrize("unit", ['{"": {}}', "[]", "{}", '"\\\\"', '{"\\"": []}', '["[", {}]'])
def test_more_parts_than_a_batch_needs_are_refused_before_any_is_made(unit: str, monkeypatch: pytest.MonkeyPatch):
    def read(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("dptrain.release.reading._json", read)
    for form in (DIGITS, TEXT, WORDS):
        refused(form, f'{{"texts": [{",".join([unit] * 1000)}]}}'.encode())


def test_texts_may_hold_what_json_is_written_with():
    form = Form("language", (60,), (0.0, 97.0), whole=True, most=2)
    texts = ['[[[{{{""""' * 5, '\\"]},\\' * 5]
    parts = form.read(json.dumps({"texts": texts}).encode(), JSON)
    assert sum(map(len, parts)) == 2


def test_a_value_that_was_rounded_to_32_bits_is_inside_the_bounds():
    form = Form("classification", (1,), (-0.3, 0.7), whole=False, most=1)
    form.read(npy(np.array([[-0.3]], dtype="f4")), NPY)
    refused(form, npy(np.array([[-0.301]])), NPY)


def test_more_examples_than_are_answered_at_once_are_refused():
    refused(DIGITS, json.dumps({"inputs": np.zeros((5, 8, 8)).tolist()}).encode())
    refused(DIGITS, npy(np.zeros((5, 8, 8))), NPY)


class Runs:
    """A pickle of this sets a flag where it is read."""

    ran = False

    def __reduce__(self) -> Any:
        return (_run, ())


def _run() -> None:
    Runs.ran = True


def test_an_array_with_pickled_objects_is_refused_and_not_read():
    body = npy(np.array([[Runs()]], dtype=object), allow_pickle=True)
    assert "object" in refused(DIGITS, body, NPY).error
    refused(DIGITS, pickle.dumps(Runs()), NPY)
    assert not Runs.ran


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 8, 8), dtype=[("a", "f4")]),
        np.zeros((1, 8, 8), dtype="c16"),
        np.zeros((1, 8, 8), dtype="U4"),
        np.zeros((1, 8, 8), dtype="M8[s]"),
        np.zeros((1, 8, 8), dtype=bool),
        np.zeros((1, 8, 8), dtype="g"),
        np.zeros((8, 8)),
        np.zeros((1, 8, 8, 1)),
        np.zeros((0, 8, 8)),
        np.zeros((1, 64)),
        np.full((1, 8, 8), np.nan),
        np.full((1, 8, 8), -np.inf),
        np.full((1, 8, 8), 1e308),
        np.float64(1.0),
    ],
)
def test_arrays_of_another_kind_or_shape_are_refused(array: np.ndarray):
    refused(DIGITS, npy(array), NPY)


@pytest.mark.parametrize(
    "body",
    [
        b"\x93NUMPY",
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 8, 8)}"),
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 10**9)}"),
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8, 8)}", bytes(512)),
        with_header("{'descr': '<f8', 'fortran_order': 0, 'shape': (1, 8, 8)}", bytes(512)),
        with_header("{'descr': ('<f8', (1000000000,)), 'fortran_order': False, 'shape': (1, 8, 8)}", bytes(512)),
        with_header("{'descr': '|V9999999999', 'fortran_order': False, 'shape': (1, 8, 8)}", bytes(512)),
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 8, 8), 'a': 1}", bytes(512)),
        with_header("(" * 3000),
        with_header("__import__('os').system('false')"),
        with_header(" " * 60_000),
        npy(GOOD)[:-1],
        npy(GOOD) + b"\x00",
    ],
)
def test_headers_that_lie_or_are_none_are_refused(body: bytes):
    refused(DIGITS, body, NPY)


def test_no_memory_is_taken_for_what_a_header_merely_claims():
    """A header of 64 bytes that claims 8 TB: whoever believed it would die."""
    form = Form("classification", (10**6,), (0.0, 1.0), whole=False, most=10**6)
    body = with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}", bytes(64))
    assert refused(form, body, NPY).status == 400


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_array_file_however_damaged_raises_anything_but_a_refusal(noise: bytes, place: int):
    whole = npy(GOOD.astype("f4"))
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    for batch in read_or_refused(DIGITS, damaged, NPY):
        assert batch.shape[1:] == (8, 8)
        assert batch.isfinite().all()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=9)))
def test_no_json_however_wrong_raises_anything_but_a_refusal(value: Any):
    for form, key in ((DIGITS, "inputs"), (TEXT, "texts"), (TEXT, "tokens"), (WORDS, "inputs")):
        read_or_refused(form, json.dumps({key: value}).encode(), JSON)


def test_another_content_type_is_refused_with_those_that_are_read():
    for kind in ("", "text/plain", "application/octet-stream", "multipart/form-data"):
        refusal = refused(DIGITS, b"{}", kind)
        assert refusal.status == 415
        assert refusal.accepted == "application/json or application/x-npy"


def test_texts_begin_with_the_sign_for_the_start_and_keep_their_order():
    batches = TEXT.read(b'{"texts": ["ab", "cd", "", "xyz"]}', JSON)
    rows = [row.tolist() for batch in batches for row in batch]
    assert [row[0] for row in rows] == [alphabet.START] * 4
    assert [alphabet.decode(torch.tensor(row)) for row in rows] == ["ab", "cd", "", "xyz"]
    assert [len(batch) for batch in batches] == [2, 1, 1]


@pytest.mark.parametrize(
    "body",
    [
        b'{"texts": [1]}',
        b'{"texts": ["123456"]}',
        b'{"texts": ["\\ud800"]}',
        b'{"tokens": [[]]}',
        b'{"tokens": [[1, 2, 3, 4, 5, 6, 7]]}',
        b'{"tokens": [[98]]}',
        b'{"tokens": [[-1]]}',
        b'{"tokens": [[1.5]]}',
        b'{"tokens": [["a"]]}',
        b'{"tokens": [[1]], "texts": ["a"]}',
        b'{"inputs": [[1]]}',
    ],
)
def test_texts_and_tokens_that_the_model_cannot_read_are_refused(body: bytes):
    refused(TEXT, body)


def test_tokens_come_as_json_and_as_an_array():
    (from_json,) = TEXT.read(b'{"tokens": [[0, 5, 6], [0, 7, 8]]}', JSON)
    (from_npy,) = TEXT.read(npy(np.array([[0, 5, 6], [0, 7, 8]], dtype="u1")), NPY)
    assert from_json.dtype == torch.int64
    assert torch.equal(from_json, from_npy)


def test_a_refusal_says_what_is_accepted(tmp_path: Path):
    assert refused(DIGITS, b"{}").accepted == (
        '{"inputs": [...]} with 1 to 4 examples of 8 × 8 finite numbers from 0 to 1, or an array of numpy.save of shape '
        "(1 to 4, 8, 8)"
    )
