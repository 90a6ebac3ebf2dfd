"""The one source of randomness in `dp`: a keyed 256-bit stream, AES-256 in counter mode.

Rules this file keeps:

1. The key comes from the operating system, or from whoever names one; `numpy.random` is never used.
2. Words are little-endian whatever the machine, so one key gives one noise vector everywhere.
3. A stream only moves forward, can be neither copied nor pickled, and refuses to go on in a forked process: no
   noise is ever drawn twice.
4. The key never shows in a `repr`.

Source: NIST SP 800-38A (counter mode); RFC 5869 (HKDF) for derived streams.
Not here: what is drawn from the stream (`discrete_gaussian`, `skellam`, `encoding`, `cohorts`).
"""

from __future__ import annotations

import os
from typing import Any, NoReturn, Self

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from numpy.typing import DTypeLike, NDArray

from dp.errors import DPError, ParameterError

__all__ = ["KEY_BYTES", "Keystream"]

KEY_BYTES = 32
_ZEROS = memoryview(bytes(1 << 16))
_COUNTER_START = bytes(16)


class Keystream:
    """A stream of uniform words that only the holder of its key can foretell.

    Not safe for use by two threads at once: give each its own, by `derive`.

    Guarantee:
        Without the key, the words are indistinguishable from uniform ones as far as AES-256 is a
        pseudorandom permutation and fewer than 2^64 blocks are drawn. Known key, known noise: a stream
        made by `seeded` protects nobody, and says so.

    Args:
        key: 32 secret bytes, or `None` for fresh ones from the operating system.

    Raises:
        ParameterError: The key is not 32 bytes.

    >>> noise = Keystream()
    >>> noise.words(3, "<u4").dtype.name
    'uint32'
    >>> Keystream.seeded(bytes(32)).words(1, "<u4").tolist()
    [2025887196]
    """

    __slots__ = ("_cipher", "_key", "_process", "_seeded")

    def __init__(self, key: bytes | None = None) -> None:
        if key is None:
            key = os.urandom(KEY_BYTES)
        if len(key) != KEY_BYTES:
            raise ParameterError(f"a keystream's key has {len(key)} bytes; it needs exactly {KEY_BYTES}")
        self._key = bytes(key)
        self._seeded = False
        self._process = os.getpid()
        self._cipher = Cipher(algorithms.AES(self._key), modes.CTR(_COUNTER_START)).encryptor()

    @classmethod
    def seeded(cls, key: bytes) -> Self:
        """A stream whose key is known: for simulations and tests only.

        Args:
            key: 32 bytes.

        Returns:
            A stream with `is_seeded` true, as have all that are derived from it.
        """
        stream = cls(key)
        stream._seeded = True
        return stream

    @property
    def is_seeded(self) -> bool:
        """Whether the key is known, so that nothing drawn here protects anyone."""
        return self._seeded

    def fill(self, buffer: NDArray[np.generic]) -> None:
        """Overwrite every byte of a contiguous array with the next bytes of the stream.

        Args:
            buffer: A writable, C-contiguous array of any shape and dtype.

        Raises:
            ParameterError: The array is not C-contiguous, so a flat view of it would be a copy.
            DPError: The stream was made before this process was forked off.
        """
        self._refuse_forks()
        if not buffer.flags.c_contiguous:
            raise ParameterError(
                "only a C-contiguous array can be filled; pass `np.empty(shape)` and copy it"
            )
        target = buffer.reshape(-1).view(np.uint8).data
        for start in range(0, len(target), len(_ZEROS)):
            piece = target[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(piece)], piece)

    def words(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """The next `count` uniform words.

        Args:
            count: How many, at least 0.
            dtype: An unsigned integer type, such as `np.uint64` or `"u4"`; read as little-endian.

        Returns:
            A new one-dimensional array.
        """
        array: NDArray[Any] = np.empty(count, dtype=np.dtype(dtype).newbyteorder("<"))
        self.fill(array)
        return array

    def integer(self, bits: int) -> int:
        """A uniform integer of the given number of bits, a multiple of 8."""
        self._refuse_forks()
        return int.from_bytes(self._cipher.update(bytes(bits // 8)), "little")

    def derive(self, label: str | bytes) -> Keystream:
        """A stream independent of this one and of every other label's (HKDF-Expand, SHA-256).

        Args:
            label: What the stream is for, such as `"round 3, client 17"`. The same label gives the same
                stream, however much was drawn from this one.

        Returns:
            A stream at its beginning, seeded if this one is.
        """
        info = b"veilsum dp keystream\x00" + (label.encode() if isinstance(label, str) else label)
        child = Keystream(
            HKDFExpand(algorithm=hashes.SHA256(), length=KEY_BYTES, info=info).derive(self._key)
        )
        child._seeded = self._seeded
        return child

    def _refuse_forks(self) -> None:
        if os.getpid() != self._process:
            raise DPError(
                "this keystream was made before the process was forked, and its twin draws the same noise; "
                "make or derive one in each process"
            )

    def __repr__(self) -> str:
        return f"Keystream({'simulation only: seeded, no guarantee' if self._seeded else 'secret key'})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keystream can be neither copied nor pickled: it would draw the same noise twice")
