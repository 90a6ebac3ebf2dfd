"""Serialized examples: what a protocol buffer library writes is read, and nothing else is."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedavg.datasets import MalformedFile
from fedavg.datasets.tf_example import parse_example, stack_examples
from tests.fedavg.datasets.tensorflow_files import (
    bytes_list,
    entry,
    example,
    field,
    float_list,
    int64_list,
    varint,
)

# protobuf 6.33.6 on a descriptor of tensorflow.Example, SerializeToString(deterministic=True):
# label: int64 [7, -1, 2**62], pixels: float [0.0, 0.5, -1.25], snippets: bytes [b"To be", b"\xff\x00"]
GOLDEN = bytes.fromhex(
    "0a5a0a210a056c6162656c12181a160a1407ffffffffffffffffff018080808080808080400a1a0a06706978656c731210120e0a0c"
    "000000000000003f0000a0bf0a190a08736e697070657473120d0a0b0a05546f2062650a02ff00"
)
EMPTY_LIST = bytes.fromhex("0a0d0a0b0a05656d70747912021200")  # The same library: empty: float [].


def test_what_a_protocol_buffer_library_wrote_is_read():
    features = parse_example(GOLDEN)
    assert list(features) == ["label", "pixels", "snippets"]
    np.testing.assert_array_equal(features["label"], [7, -1, 2**62])
    np.testing.assert_array_equal(features["pixels"], [0.0, 0.5, -1.25])
    assert features["snippets"] == [b"To be", b"\xff\x00"]
    assert (features["label"].dtype, features["pixels"].dtype) == (np.int64, np.float32)


def test_empty_messages_and_lists_are_read():
    assert parse_example(b"") == {}
    assert parse_example(example()) == {}
    assert len(parse_example(EMPTY_LIST)["empty"]) == 0


def test_the_tests_own_writer_writes_the_same_bytes():
    ours = example(
        label=int64_list(7, -1, 2**62),
        pixels=float_list(0.0, 0.5, -1.25),
        snippets=bytes_list(b"To be", b"\xff\x00"),
    )
    assert ours == GOLDEN


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.lists(st.floats(width=32, allow_nan=False), max_size=5),
    st.lists(st.binary(max_size=5), max_size=5),
)
def test_every_value_comes_back(integers, floats, texts):
    features = parse_example(
        example(i=int64_list(*integers), f=float_list(*floats), b=bytes_list(*texts), ä=int64_list())
    )
    assert features["i"].tolist() == integers
    assert features["f"].tolist() == floats
    assert features["b"] == texts
    assert features["ä"].tolist() == []


def test_numbers_may_be_written_one_by_one():
    unpacked = field(3, b"\x08\x05" + b"\x08" + varint(-2))
    floats = field(2, b"\x0d\x00\x00\x00\x3f" + b"\x0d\x00\x00\x80\x3f")
    features = parse_example(example(i=unpacked, f=floats))
    assert features["i"].tolist() == [5, -2]
    assert features["f"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (GOLDEN[:-1], "ends before one of its fields"),
        (GOLDEN + b"\x00", "field 0 of wire type 0"),
        (GOLDEN + GOLDEN, "field 1 twice"),
        (b"\x80", "does not end"),
        (b"\x0a" + b"\xff" * 10, "does not end, or of more than 64 bits"),
        (b"\x0a" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x12\x00", "field 2 of wire type 2"),
        (b"\x08\x05", "field 1 of wire type 0"),
        (field(1, entry("a", int64_list(1)) * 2), "two features 'a'"),
        (field(1, field(1, field(1, b"a"))), "without a name or without a value"),
        (field(1, field(1, field(1, b"\xff") + field(2, int64_list()))), "name is no text"),
        (example(a=b""), "has 0 kinds"),
        (example(a=int64_list(1) + float_list(1.0)), "has 2 kinds"),
        (example(a=int64_list(1) + int64_list(1)), "field 3 twice"),
        (example(a=field(4, b"")), "field 4 of wire type 2"),
        (example(a=field(2, field(1, b"\x00\x00\x00"))), "ends within a float"),
        (example(a=field(2, b"\x0d\x00\x00")), "ends before one of its fields"),
        (example(a=field(3, field(1, b"\x80"))), "does not end"),
    ],
)
def test_everything_else_is_refused(data, sentence):
    with pytest.raises(MalformedFile, match=sentence):
        parse_example(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(junk):
    with contextlib.suppress(MalformedFile):
        parse_example(junk)


@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(position, value):
    with contextlib.suppress(MalformedFile):
        parse_example(GOLDEN[:position] + bytes([value]) + GOLDEN[position + 1 :])


def test_examples_of_one_form_are_stacked():
    examples = [
        example(label=int64_list(i), pixels=float_list(*range(i, i + 4)), snippets=bytes_list(b"%d" % i))
        for i in range(3)
    ]
    stacked = stack_examples(examples, {"pixels": (2, 2), "label": (), "snippets": ()})
    assert list(stacked) == ["pixels", "label", "snippets"]
    np.testing.assert_array_equal(stacked["pixels"][2], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(stacked["label"], [0, 1, 2])
    assert stacked["snippets"] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("second", "shapes", "sentence"),
    [
        (example(a=int64_list(1)), {"a": (), "b": ()}, r"\['a'\]; the ones asked for are \['a', 'b'\]"),
        (example(a=int64_list(1, 2)), {"a": ()}, r"has 2 values of 'a'; its shape is said to be \(\)"),
        (example(a=float_list(1)), {"a": ()}, "'a' is int64 in one example and float32 in another"),
        (example(a=bytes_list(b"x")), {"a": ()}, "'a' is int64 in one example and bytes in another"),
        (example(b=int64_list(1)), {"a": ()}, r"has the features \['b'\]"),
    ],
)  # fmt: skip
def test_examples_of_other_forms_are_refused(second, shapes, sentence):
    with pytest.raises(MalformedFile, match=sentence):
        stack_examples([example(a=int64_list(1)), second], shapes)


def test_bytes_have_no_shape():
    with pytest.raises(MalformedFile, match="decode it yourself"):
        stack_examples([example(a=bytes_list(b"x", b"y"))], {"a": (2,)})
