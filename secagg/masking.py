"""Masks: the AES-256-CTR keystream of a 32-byte key, added to or taken from a vector modulo 2^b.

Bonawitz et al. 2017, section 4 (the generator PRG); Bell et al. 2020 uses the same masks. The keystream is
defined in segments of 128 KiB: segment i is AES-256-CTR from the counter block made of i as 12 bytes
big-endian and 2 as 4 bytes big-endian, read as little-endian words of the ring ('<u4' up to 32 bits, '<u8'
above). That is what AES-256-GCM under nonce i makes of zeros, which OpenSSL computes at more than twice the
speed of its CTR mode; the tag is thrown away. Segments can be computed in any order, so that threads share
one vector without a copy each.

Invariants:

- one key masks one vector, once: the nonces repeat under every key;
- a mask and its negative cancel exactly, in any order, with any number of threads;
- bits above the low b of the vector become arbitrary.

Not here: where keys come from (`secagg.keys`) and who masks with whom (`secagg.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.errors import ParameterError
from secagg.ring import Words, word_dtype

__all__ = ["MASK_KEY_BYTES", "SEGMENT_BYTES", "add_mask", "apply_masks"]

MASK_KEY_BYTES = 32
SEGMENT_BYTES = 128 * 1024

_TAG_BYTES = 16
_ZEROS = memoryview(bytes(SEGMENT_BYTES))
_GROUP = 256  # live ciphers at a time, 2.4 KB each

_Operation = tuple[AESGCM, Callable[..., Words]]


def add_mask(accumulator: Words, key: bytes, sign: int, *, bits: int) -> None:
    """Add (`sign` = 1) or subtract (`sign` = -1) one mask, in place; see `apply_masks`."""
    apply_masks(accumulator, [(key, sign)], bits=bits)


def apply_masks(
    accumulator: Words, masks: Iterable[tuple[bytes, int]], *, bits: int, threads: int = 1
) -> None:
    """Add every mask to `accumulator` with its sign, in place.

    Guarantee: to whoever lacks the keys, the low `bits` bits are uniform up to the advantage of telling
    AES-256 in counter mode from random.

    Args:
        accumulator: a one-dimensional vector of `word_dtype(bits)`.
        masks: pairs of a 32-byte key and a sign, 1 or -1; consumed lazily.
        bits: the modulus is 2^bits.
        threads: how many threads share the segments of the vector.

    Raises:
        ParameterError: another word type, a key of another length or another sign.

    >>> vector = np.zeros(3, dtype="<u4")
    >>> apply_masks(vector, [(bytes(32), 1), (bytes(31) + b"x", 1)], bits=26)
    >>> apply_masks(vector, [(bytes(31) + b"x", -1), (bytes(32), -1)], bits=26)
    >>> vector
    array([0, 0, 0], dtype=uint32)
    """
    if accumulator.dtype != word_dtype(bits) or accumulator.ndim != 1:
        raise ParameterError(
            f"masks of {bits} bits need one dimension of {word_dtype(bits)}; got {accumulator.dtype}"
        )
    per_segment = SEGMENT_BYTES // accumulator.itemsize
    segments = -(-len(accumulator) // per_segment)
    workers = max(1, min(threads, segments))
    pending = (_operation(key, sign) for key, sign in masks)

    def work(first: int, operations: list[_Operation]) -> None:
        buffer = bytearray(min(SEGMENT_BYTES, accumulator.nbytes) + _TAG_BYTES)
        for index in range(first, segments, workers):
            part = accumulator[index * per_segment : (index + 1) * per_segment]
            _mask_segment(part, index, operations, buffer)

    if workers == 1:
        for group in _groups(pending):
            work(0, group)
        return
    with ThreadPoolExecutor(workers) as pool:
        for group in _groups(pending):
            list(pool.map(work, range(workers), [group] * workers))


def _operation(key: bytes, sign: int) -> _Operation:
    """Return the cipher of a mask and the ufunc that applies it."""
    if len(key) != MASK_KEY_BYTES or sign not in (1, -1):
        raise ParameterError(f"a mask needs a key of {MASK_KEY_BYTES} bytes and a sign of 1 or -1")
    return AESGCM(key), np.add if sign == 1 else np.subtract


def _groups(pending: Iterator[_Operation]) -> Iterator[list[_Operation]]:
    """Cut a stream of operations into lists of bounded length."""
    while group := list(islice(pending, _GROUP)):
        yield group


def _mask_segment(part: Words, index: int, operations: list[_Operation], buffer: bytearray) -> None:
    """Apply every operation to one segment of the vector while it is in cache."""
    nonce = index.to_bytes(12, "big")
    zeros = _ZEROS[: part.nbytes]
    sealed = memoryview(buffer)[: part.nbytes + _TAG_BYTES]
    keystream = np.frombuffer(buffer, dtype=part.dtype, count=len(part))
    for cipher, apply in operations:
        cipher.encrypt_into(nonce, zeros, None, sealed)
        apply(part, keystream, out=part)
