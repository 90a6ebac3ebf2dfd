"""The seeded source is AES-256-CTR, derives injectively, and cannot be duplicated by accident."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.entropy import SeededEntropy, system_entropy
from secagg.errors import LocalProtocolError, ParameterError
from tests.secagg.vectors import nist_vectors

LABELS = st.lists(st.one_of(st.binary(max_size=4), st.text(max_size=3), st.integers()), max_size=3)


def test_system_entropy_gives_fresh_bytes_of_the_asked_length():
    assert len(system_entropy(32)) == 32
    assert system_entropy(32) != system_entropy(32)


def test_stream_matches_the_ctr_keystream_built_from_nist_ecb_blocks():
    """AES-256-CTR's first block is AES-256 of the zero block: NIST's ECB VarKey vectors give it."""
    vectors = nist_vectors("ciphers/AES/ECB/ECBVarKey256.rsp", direction="ENCRYPT")
    assert len(vectors) == 256
    for vector in vectors:
        assert vector["plaintext"] == bytes(16)
        assert SeededEntropy(vector["key"])(16) == vector["ciphertext"]


@given(st.lists(st.integers(0, 70), max_size=6))
def test_pieces_of_a_stream_join_to_the_stream(sizes):
    whole, pieces = SeededEntropy(b"k" * 32), SeededEntropy(b"k" * 32)
    assert b"".join(pieces(size) for size in sizes) == whole(sum(sizes))


@given(LABELS, LABELS)
def test_different_labels_give_different_sources(one, other):
    root = SeededEntropy(bytes(32))
    same = [(type(x), x) for x in one] == [(type(x), x) for x in other]
    assert (root.derive(*one)(16) == root.derive(*other)(16)) == same


def test_a_child_does_not_depend_on_what_its_parent_gave_out():
    root = SeededEntropy(bytes(32))
    before = root.derive("x")(16)
    root(100)
    assert root.derive("x")(16) == before


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ParameterError, match="exactly 32"):
        SeededEntropy(bytes(length))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_duplicated(duplicate):
    with pytest.raises(LocalProtocolError, match="repeat"):
        duplicate(SeededEntropy(bytes(32)))


def test_the_key_is_not_in_the_repr():
    assert "6b6b" not in repr(SeededEntropy(b"k" * 32))
    assert "kkkk" not in repr(SeededEntropy(b"k" * 32))
