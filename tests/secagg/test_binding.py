import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import binding
from secagg.parameters import Vector
from tests.secagg.rounds import choose

FIELDS = st.one_of(st.binary(max_size=20), st.text(max_size=8), st.integers(0, 2**64 - 1), st.floats())
KEY_A, KEY_B = b"a" * 32, b"b" * 32


def test_enc_prefixes_every_field_with_its_length():
    assert binding.enc("a", 11) == b"\0" * 7 + b"\1a" + b"\0" * 7 + b"\x08" + b"\0" * 7 + b"\x0b"
    assert binding.enc(0.5) == b"\0" * 7 + b"\x08" + struct.pack(">d", 0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", 11), ("a1", 1)),
        (("ab", "c"), ("a", "bc")),
        (("", "a"), ("a", "")),
        (("a",), ("a", "")),
        ((1.0,), (2.0,)),
        ((0.0,), (-0.0,)),
    ],
)
def test_boundary_collisions_of_enc_do_not_exist(one, other):
    assert binding.enc(*one) != binding.enc(*other)


@given(st.lists(FIELDS, max_size=6), st.lists(FIELDS, max_size=6))
def test_enc_is_injective_and_a_concatenation(one, other):
    assert binding.enc(*one) + binding.enc(*other) == binding.enc(*one, *other)
    raw = [binding.enc(field)[8:] for field in one]
    assert binding.split(binding.enc(*one)) == raw
    if raw != [binding.enc(field)[8:] for field in other]:
        assert binding.enc(*one) != binding.enc(*other)


@given(st.binary(max_size=60))
def test_split_takes_any_bytes(data):
    assert binding.enc(*binding.split(data)) == data[: len(binding.enc(*binding.split(data)))]


def test_packed_forms_are_enc():
    assert binding.pair_fields(7, 2**40, KEY_A, KEY_B) == binding.enc(7, 2**40, KEY_A, KEY_B)
    context = b"c" * 32
    assert binding.associated_data(context, 3, 4) == binding.enc("sealed shares", context, 3, 4)
    fields = (context, 3, 2**40, 1, b"s" * 16, b"h" * 36)
    assert binding.share_hash(*fields) == hashlib.sha256(binding.enc("share", *fields)).digest()
    vector = binding.vector_fields(1, Vector("v", 9, 24))
    assert vector == binding.enc(1, "v", 24, 9)
    assert binding.mask_info(b"pair", vector) == binding.enc("mask") + b"pair" + vector
    assert binding.self_mask_info(5, vector) == binding.enc("self", 5) + vector


def test_a_consistency_statement_names_both_ends_and_both_sets():
    """Besides the key of its direction, so that neither alone keeps a tag from being moved or reflected."""
    shared, survivors = b"\xff", b"\x7f"
    sets = binding.sets_of(shared, survivors)
    assert sets == binding.enc(hashlib.sha256(shared).digest(), hashlib.sha256(survivors).digest())
    statement = binding.consistency_statement(b"c" * 32, 1, 2, sets)
    assert statement == binding.enc("consistency", b"c" * 32, 1, 2) + sets
    others = [binding.consistency_statement(b"c" * 32, *ends, sets) for ends in ((2, 1), (1, 3), (3, 2))]
    assert statement not in others


@pytest.mark.parametrize(
    "change",
    [
        {"task": "other"},
        {"round": 4},
        {"model_hash": b"m" * 32},
        {"application": b"less noise"},
        {"vectors": (Vector("v", 5, 17),)},
        {"vectors": (Vector("w", 5, 16),)},
        {"minimum_survivors": 7},
        {"dropout": 0.2},
        {"corruption": 0.2},
        {"security_bits": 41},
        {"failure_bits": 31},
        {"conditional_secrets": 1, "reveal_rule": "r"},
    ],
)
def test_session_and_canonical_bytes_change_with_every_parameter(change):
    base, changed = choose(), choose(**change)
    assert base.canonical != changed.canonical
    assert binding.session_of(base, bytes(32)) != binding.session_of(changed, bytes(32))
    assert binding.session_of(base, bytes(32)) != binding.session_of(base, b"n" * 32)
    assert set(base.differences(changed.canonical)) >= set(change)


def test_contexts_and_seeds_separate_by_label_and_content():
    session, roster = b"s" * 32, b"r" * 32
    values = [
        binding.context_of(session, roster),
        binding.context_of(roster, session),
        binding.ring_seed(roster),
        binding.commitment(session, 1, roster),
        binding.conditional_commitment(session, 1, 1, roster),
        binding.conditional_commitment(session, 1, 2, roster),
        binding.share_hash(session, 1, 2, 0, b"x" * 16, b"y" * 36),
        binding.share_hash(session, 2, 1, 0, b"x" * 16, b"y" * 36),
        binding.share_hash(session, 1, 2, 1, b"x" * 16, b"y" * 36),
    ]
    assert len(set(values)) == len(values)
    assert binding.context_of(session, roster) == hashlib.sha256(binding.enc(session, roster)).digest()
