"""Shamir's t-of-n sharing of 32-byte secrets, in batches, over the integers modulo p = 65521.

Shamir 1979. A secret is 18 words (words 0 to 16 hold 15 bits each, word 17 the last one, least significant
first), each the constant term of its own polynomial of degree below t; a share is the 18 values at one point.
All polynomials of a batch are evaluated by one float64 matrix product, which is exact: t * p^2 < 2^53.

Invariants:

- coefficients are uniform in [0, p), by rejection; a leading coefficient of zero is allowed (excluding it
  would tell t - 1 shares something about the secret);
- points are 1 to n < p: point 0, or p, would be the secret itself;
- a recovered word out of its range is reported, never folded: no honest dealer shared it.

Not here: who holds which point (`secagg.graph`), sealing and commitments (`secagg.client`), or blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from secagg.entropy import Entropy
from secagg.errors import MalformedMessage, ParameterError

__all__ = [
    "MAX_SHARES",
    "PRIME",
    "SECRET_BYTES",
    "SHARE_BYTES",
    "Shares",
    "consistent",
    "decode_share",
    "encode_share",
    "lagrange_weights",
    "reconstruct",
    "share",
]

PRIME = 65521
MAX_SHARES = PRIME - 1
SECRET_BYTES = 32

_WORDS = 18
_WORD_BITS = 15
_BLOCK = 64  # secrets recovered at a time: as floats, the shares take four times their room
_GENERATOR = 17  # of the multiplicative group modulo PRIME; a test shows it
SHARE_BYTES = 2 * _WORDS

Shares = npt.NDArray[np.uint16]
_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


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
    values = _modulo(_powers(shares, threshold) @ coefficients)
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
        recovered += _from_words(_modulo(weights @ columns).reshape(len(block), _WORDS))
    return recovered


def consistent(points: Sequence[int], shares: Shares, *, threshold: int) -> npt.NDArray[np.bool_]:
    """Say for each secret whether all its shares lie on polynomials of degree below `threshold`.

    A sum over all points of v_i x_i^j y_i, with v_i the product of 1 / (x_i - x_k), is zero for every
    j < s - threshold exactly when the s values y_i lie on such a polynomial (the dual of a Reed-Solomon code).

    Args:
        points: s distinct points.
        shares: array of shape (m, s, 18).
        threshold: as at sharing.

    Returns:
        An array of m booleans; all true where s <= threshold, as there is nothing to compare.

    Raises:
        ParameterError: points repeated or out of range.
    """
    secrets, count, _ = shares.shape
    log, exp = _tables()
    x = _checked_points(tuple(points))
    scale = -_log_differences(x).sum(axis=0)
    degrees = np.arange(max(0, count - threshold))[:, np.newaxis]
    checks = exp[(degrees * log[x] + scale) % (PRIME - 1)].astype(np.float64)
    columns = shares.swapaxes(0, 1).reshape(count, secrets * _WORDS)
    wrong = _modulo(checks @ columns).reshape(len(checks), secrets, _WORDS)
    return np.logical_not(wrong.any(axis=(0, 2)))


@lru_cache(maxsize=256)
def lagrange_weights(points: tuple[int, ...]) -> _Floats:
    """Return the weights whose inner product with the values at `points` is the value at zero.

    Weight i is the product over k of x_k / (x_k - x_i) modulo p, from tables of discrete logarithms.

    Raises:
        ParameterError: points repeated or out of range.
    """
    log, exp = _tables()
    x = _checked_points(points)
    exponent = log[x].sum() - log[x] - _log_differences(x).sum(axis=0)
    weights: _Floats = exp[exponent % (PRIME - 1)].astype(np.float64)
    weights.flags.writeable = False
    return weights


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


def _modulo(values: _Floats) -> Shares:
    """Reduce exact non-negative integers held as floats modulo p."""
    return (values.astype(np.uint64) % np.uint64(PRIME)).astype(np.uint16)


@lru_cache(maxsize=1)
def _tables() -> tuple[_Integers, _Integers]:
    """Return discrete logarithms (of 1..p-1; entry 0 is unused) and powers of the generator."""
    exp = np.ones(PRIME - 1, dtype=np.int64)
    done = 1
    while done < len(exp):
        step = int(exp[done - 1]) * _GENERATOR % PRIME
        upper = exp[done : 2 * done]
        upper[:] = exp[: len(upper)] * step % PRIME
        done *= 2
    log = np.zeros(PRIME, dtype=np.int64)
    log[exp] = np.arange(PRIME - 1)
    return log, exp


@lru_cache(maxsize=32)
def _powers(shares: int, threshold: int) -> _Floats:
    """Return x^j modulo p for points x = 1..shares and j < threshold."""
    log, exp = _tables()
    exponents = log[1 : shares + 1, np.newaxis] * np.arange(threshold)
    powers: _Floats = exp[exponents % (PRIME - 1)].astype(np.float64)
    powers.flags.writeable = False
    return powers


def _checked_points(points: tuple[int, ...]) -> _Integers:
    """Return the points as an array, after checking that they are distinct and in range."""
    if not points or min(points) < 1 or max(points) > MAX_SHARES or len(set(points)) != len(points):
        raise ParameterError(f"share points must be distinct and in 1..{MAX_SHARES}; got {points}")
    return np.array(points, dtype=np.int64)


def _log_differences(x: _Integers) -> _Integers:
    """Return log(x_k - x_i) modulo p at [k, i], and zero on the diagonal."""
    log, _ = _tables()
    differences: _Integers = log[(x[:, np.newaxis] - x) % PRIME]
    return differences
