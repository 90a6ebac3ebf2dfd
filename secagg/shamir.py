"""Shamir's t-of-n sharing of 32-byte secrets, in batches, over the integers modulo p = 65521.

Shamir 1979. A secret is 18 words (words 0 to 16 hold 15 bits each, word 17 the last one, least significant
first), each the constant term of its own polynomial of degree below t; a share is the 18 values at one point.
All polynomials of a batch are evaluated by one float64 matrix product, which is exact: t * p^2 < 2^53.

Invariants:

- coefficients are uniform in [0, p), by rejection; a leading coefficient of zero is allowed (excluding it
  would tell t - 1 shares something about the secret);
- points are 1 to n < p: point 0, or p, would be the secret itself;
- a recovered word out of its range is reported, never folded: no honest dealer shared it.

Not here: the field (`secagg.prime_field`), wrong shares (`secagg.reed_solomon`), who holds which point
(`secagg.graph`), sealing and commitments (`secagg.client`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from secagg.entropy import Entropy
from secagg.errors import MalformedMessage, ParameterError
from secagg.prime_field import MAX_POINT, PRIME, Floats, Residues, lagrange_weights, modulo, powers

__all__ = [
    "MAX_SHARES",
    "PRIME",
    "SECRET_BYTES",
    "SHARE_BYTES",
    "Shares",
    "decode_share",
    "encode_share",
    "reconstruct",
    "share",
]

MAX_SHARES = MAX_POINT
SECRET_BYTES = 32

_WORDS = 18
_WORD_BITS = 15
_BLOCK = 64  # secrets recovered at a time: as floats, the shares take four times their room
SHARE_BYTES = 2 * _WORDS

Shares = Residues


def share(secrets: Sequence[bytes], *, threshold: int, shares: int, entropy: Entropy) -> Shares:
    """Share every secret so that any `threshold` of its shares give it back and fewer say nothing.

    Guarantee: for uniform entropy, any threshold - 1 shares of a secret are jointly uniform, whatever the
    secret is.

    Args:
        secrets: m strings of 32 bytes.
        threshold: shares needed to recover, 2 to `shares`.
        shares: shares made of each secret, at points 1 to `shares`, at most 65520.
        entropy: where the coefficients come from.

    Returns:
        An array of shape (m, shares, 18); entry [i, x - 1] is the share of secret i at point x.

    Raises:
        ParameterError: threshold or shares out of range, or a secret of another length.

    Source: Shamir, "How to share a secret", 1979.

    >>> from secagg.entropy import system_entropy
    >>> dealt = share([b"s" * 32], threshold=2, shares=3, entropy=system_entropy)
    >>> reconstruct([1, 3], dealt[:, [0, 2]])
    [b'ssssssssssssssssssssssssssssssss']
    """
    if not 2 <= threshold <= shares <= MAX_SHARES:
        raise ParameterError(
            f"threshold {threshold} of {shares} shares was asked for; "
            f"use 2 <= threshold <= shares <= {MAX_SHARES}"
        )
    width = len(secrets) * _WORDS
    coefficients = np.empty((threshold, width))
    coefficients[0] = _to_words(secrets).reshape(width)
    coefficients[1:] = _uniform((threshold - 1) * width, entropy).reshape(threshold - 1, width)
    values = modulo(_powers(shares, threshold) @ coefficients)
    return np.ascontiguousarray(values.reshape(shares, len(secrets), _WORDS).swapaxes(0, 1))


def reconstruct(points: Sequence[int], shares: Shares) -> list[bytes | None]:
    """Recover secrets from exactly threshold many shares each, all taken at the same points.

    Args:
        points: the t distinct points, each in 1..65520.
        shares: array of shape (m, t, 18), every word below 65521.

    Returns:
        The m secrets; None for one whose words are out of range, which no honest dealer's are.

    Raises:
        ParameterError: points repeated or out of range.
    """
    weights = lagrange_weights(tuple(points))
    recovered: list[bytes | None] = []
    for start in range(0, len(shares), _BLOCK):
        block = shares[start : start + _BLOCK]
        columns = block.swapaxes(0, 1).reshape(len(weights), -1)
        recovered += _from_words(modulo(weights @ columns).reshape(len(block), _WORDS))
    return recovered


def encode_share(words: Shares) -> bytes:
    """Return the 36 bytes of one share."""
    return words.astype("<u2").tobytes()


def decode_share(data: bytes) -> Shares:
    """Return the 18 words of one share.

    Raises:
        MalformedMessage: another length, or a word that is not below 65521.
    """
    if len(data) != SHARE_BYTES:
        raise MalformedMessage(f"a share of {len(data)} bytes arrived; shares take exactly {SHARE_BYTES}")
    words = np.frombuffer(data, dtype="<u2").astype(np.uint16)
    if int(words.max()) >= PRIME:
        raise MalformedMessage(f"a share holds a word that is not below {PRIME}")
    return words


def _to_words(secrets: Sequence[bytes]) -> Shares:
    """Cut 32-byte secrets into 18 words, 15 bits each."""
    for secret in secrets:
        if len(secret) != SECRET_BYTES:
            raise ParameterError(
                f"a secret of {len(secret)} bytes was given; only {SECRET_BYTES} can be shared"
            )
    raw = np.frombuffer(b"".join(secrets), dtype=np.uint8).reshape(len(secrets), SECRET_BYTES)
    bits = np.zeros((len(secrets), _WORDS * _WORD_BITS), dtype=np.uint16)
    bits[:, : 8 * SECRET_BYTES] = np.unpackbits(raw, axis=1, bitorder="little")
    places = (1 << np.arange(_WORD_BITS)).astype(np.uint16)
    return bits.reshape(len(secrets), _WORDS, _WORD_BITS) @ places


def _from_words(words: Shares) -> list[bytes | None]:
    """Join words into secrets; None where a word is too large."""
    limits = np.full(_WORDS, 1 << _WORD_BITS)
    limits[-1] = 1 << (8 * SECRET_BYTES - (_WORDS - 1) * _WORD_BITS)
    in_range = np.all(words < limits, axis=1).tolist()
    bits = (words[:, :, np.newaxis] >> np.arange(_WORD_BITS, dtype=np.uint16)) & 1
    raw = np.packbits(
        bits.reshape(len(words), -1)[:, : 8 * SECRET_BYTES].astype(np.uint8), axis=1, bitorder="little"
    )
    return [row.tobytes() if good else None for row, good in zip(raw, in_range, strict=True)]


def _uniform(count: int, entropy: Entropy) -> Shares:
    """Draw `count` uniform field elements, by rejection from 16-bit words."""
    drawn = np.empty(count, dtype=np.uint16)
    have = 0
    while have < count:
        words = np.frombuffer(entropy(2 * (count - have)), dtype="<u2")
        words = words[words < PRIME]
        drawn[have : have + len(words)] = words
        have += len(words)
    return drawn


@lru_cache(maxsize=32)
def _powers(shares: int, threshold: int) -> Floats:
    """Return x^j modulo p for points x = 1..shares and j < threshold."""
    values = powers(np.arange(1, shares + 1), threshold)
    values.flags.writeable = False
    return values
