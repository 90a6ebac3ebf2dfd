"""The keyed stream: known answers, independence of derived streams, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dp import ParameterError
from dp.keystream import Keystream

KEY = bytes(range(32))


def test_first_block_is_the_published_aes_256_answer() -> None:
    """NIST CAVP GFSbox/KAT: AES-256 of the zero block under the zero key."""
    assert Keystream.seeded(bytes(32)).words(16, "u1").tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize("lengths", [[1], [7, 9, 16], [65_536, 1, 65_535], [200_001], [0, 5]])
def test_stream_does_not_depend_on_how_it_is_cut(lengths: list[int]) -> None:
    stream = Keystream.seeded(KEY)
    drawn = b"".join(stream.words(n, "u1").tobytes() for n in lengths)
    expected = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor().update(bytes(sum(lengths)))
    assert drawn == expected


def test_words_are_little_endian() -> None:
    raw = Keystream.seeded(KEY).words(64, "u1").tobytes()
    for dtype in (np.uint16, "u4", ">u4", np.uint64):
        size = np.dtype(dtype).itemsize
        expected = [int.from_bytes(raw[i : i + size], "little") for i in range(0, 64, size)]
        assert Keystream.seeded(KEY).words(64 // size, dtype).tolist() == expected
    assert Keystream.seeded(KEY).integer(64) == int.from_bytes(raw[:8], "little")


def test_fill_writes_every_byte_of_any_shape() -> None:
    buffer = np.zeros((3, 5, 7), dtype=np.uint32)
    Keystream.seeded(KEY).fill(buffer)
    assert buffer.tobytes() == Keystream.seeded(KEY).words(buffer.nbytes, "u1").tobytes()


def test_array_that_would_be_copied_is_refused() -> None:
    with pytest.raises(ParameterError, match="C-contiguous"):
        Keystream.seeded(KEY).fill(np.empty((4, 4))[:, ::2])


def test_fresh_streams_differ_and_are_not_seeded() -> None:
    first, second = Keystream(), Keystream()
    assert first.words(32, "u1").tobytes() != second.words(32, "u1").tobytes()
    assert not first.is_seeded


def test_derived_streams_depend_on_key_and_label_only() -> None:
    def head(stream: Keystream) -> bytes:
        return stream.words(32, "u1").tobytes()

    parent = Keystream.seeded(KEY)
    parent.words(100, "u1")
    heads = {head(parent.derive(label)) for label in ("a", "b", "ab", "")}
    assert len(heads) == 4
    assert head(parent.derive("a")) == head(Keystream.seeded(KEY).derive(b"a"))
    assert head(Keystream.seeded(bytes(32)).derive("a")) != head(parent.derive("a"))


def test_seeded_says_simulation_and_passes_it_on() -> None:
    assert Keystream.seeded(KEY).derive("x").is_seeded
    assert "simulation only" in repr(Keystream.seeded(KEY))
    assert not Keystream(KEY).derive("x").is_seeded
    assert "simulation" not in repr(Keystream(KEY))


def test_key_never_shows() -> None:
    for stream in (Keystream(KEY), Keystream.seeded(KEY)):
        assert KEY.hex() not in repr(stream)
        assert repr(KEY) not in repr(stream)
        assert not hasattr(stream, "__dict__")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_stream_cannot_be_duplicated(duplicate: object) -> None:
    with pytest.raises(TypeError, match="same noise twice"):
        duplicate(Keystream.seeded(KEY))  # type: ignore[operator]


def test_stream_does_not_go_on_in_a_forked_process() -> None:
    """The child inherits the stream's state: drawing would repeat the parent's noise; deriving its own is fine."""
    script = """
import os
from dp import DPError
from dp.keystream import Keystream
stream = Keystream()
child = os.fork()
if child == 0:
    refused = 0
    for draw in (lambda: stream.words(1, "u1"), lambda: stream.integer(64)):
        try:
            draw()
        except DPError as error:
            refused += "forked" in str(error)
    stream.derive("child").words(1, "u1")
    os._exit(refused)
stream.words(1, "u1")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "2"


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_key_of_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ParameterError, match=f"{length} bytes; it needs exactly 32"):
        Keystream(bytes(length))
