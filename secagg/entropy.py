"""Where random bytes come from: the one door to the operating system, and a seeded stand-in.

Every part of `secagg` that needs randomness takes an `Entropy`, a function from a number of bytes to
that many bytes. Invariants:

- `system_entropy` is the only place of the package that asks the operating system;
- a `SeededEntropy` never repeats a byte of its stream, and children derived under different labels have
  independent keys (HKDF-SHA256, RFC 5869, over labels that are each prefixed by type and length);
- a seeded source is for simulations and tests: whoever knows its key can undo every mask.

Not here: key schedules of the protocol itself (`secagg.keys`) and mask keystreams (`secagg.masking`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from secagg.errors import LocalProtocolError, ParameterError

__all__ = ["Entropy", "SeededEntropy", "system_entropy"]

Entropy = Callable[[int], bytes]
"""Gives so many random bytes."""

_KEY_BYTES = 32


def system_entropy(count: int) -> bytes:
    """Return `count` bytes from the operating system's generator."""
    return os.urandom(count)


class SeededEntropy:
    """A reproducible source: the AES-256-CTR keystream of one key. For simulations and tests only.

    Args:
        key: 32 bytes; the whole stream follows from them.

    Raises:
        ParameterError: the key is not 32 bytes long.

    >>> one, two = SeededEntropy(bytes(32)), SeededEntropy(bytes(32))
    >>> one(5) + one(3) == two(8)
    True
    >>> one.derive("client", 7)(4) == one.derive("client", 8)(4)
    False
    """

    __slots__ = ("_key", "_stream")

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ParameterError(f"a seed of {len(key)} bytes was given; SeededEntropy takes exactly 32")
        self._key = bytes(key)
        self._stream = Cipher(algorithms.AES256(self._key), modes.CTR(bytes(16))).encryptor()

    def __call__(self, count: int) -> bytes:
        """Return the next `count` bytes of the stream."""
        return self._stream.update(bytes(count))

    def derive(self, *labels: bytes | str | int) -> SeededEntropy:
        """Return the source that belongs to `labels`; it does not depend on what was drawn so far."""
        info = b"secagg entropy" + b"".join(_label(label) for label in labels)
        return SeededEntropy(HKDFExpand(SHA256(), _KEY_BYTES, info).derive(self._key))

    def __repr__(self) -> str:
        return "SeededEntropy(simulation and tests only)"

    def __reduce__(self) -> NoReturn:
        raise LocalProtocolError("a SeededEntropy cannot be copied or pickled: its stream would repeat")


def _label(label: bytes | str | int) -> bytes:
    """Encode one label so that no two different lists of labels give the same bytes."""
    if isinstance(label, int):
        kind, content = b"i", str(label).encode()
    elif isinstance(label, str):
        kind, content = b"s", label.encode()
    else:
        kind, content = b"b", bytes(label)
    return kind + len(content).to_bytes(8, "big") + content
