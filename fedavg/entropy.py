"""Where a run's randomness comes from: the operating system, or, in a simulation only, one seed.

Three kinds of randomness are kept apart by label: cohorts and noise (keyed streams of `dp`), keys and masks (the
entropy of `secagg`), and the simulator's own dice (who drops out), which protect nobody.

A seeded run repeats exactly, so whoever knows the seed can subtract the noise: it gives no guarantee, and its
statements say "simulation, no guarantee".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import dp
import secagg
from fedavg.errors import ParameterError

__all__ = ["RunEntropy"]


@dataclass(frozen=True)
class RunEntropy:
    """The run's randomness: `RunEntropy()` is the operating system's, `RunEntropy.seeded(7)` a simulation's."""

    _key: bytes | None = field(default=None, repr=False)

    @classmethod
    def seeded(cls, seed: int) -> RunEntropy:
        """Everything from one public number: for tests and simulations, never for anybody's protection.

        Args:
            seed: A whole number from 0 to 2^63 - 1.

        Raises:
            ParameterError: a seed outside that range.
        """
        if not 0 <= seed < 2**63:
            raise ParameterError(f"the simulation seed is {seed}; give a whole number from 0 to 2^63 - 1")
        return cls(hashlib.sha256(b"veilsum simulation seed" + seed.to_bytes(8, "big")).digest())

    @property
    def _root(self) -> secagg.SeededEntropy | None:
        """Only ever derived from, never drawn from: so that this object may travel to where the clients are."""
        return None if self._key is None else secagg.SeededEntropy(self._key)

    @property
    def is_seeded(self) -> bool:
        """Whether the run repeats, and therefore promises nothing."""
        return self._key is not None

    def keystream(self, *labels: str | int) -> dp.Keystream:
        """A 256-bit-keyed stream for a cohort draw or one client's rounding and noise.

        Args:
            labels: What it is for; other labels give an independent stream.
        """
        root = self._root
        if root is None:
            return dp.Keystream()
        return dp.Keystream.seeded(root.derive("keystream", *labels)(32))

    def keystreams(self, *labels: str | int) -> Callable[[int], dp.Keystream]:
        """Streams for the rounding and noise of clients that one process plays, by client, each asked for once.

        Seeded ones are those that `keystream` names by the client. The operating system's are one stream that all draw
        from in turn: no two clients draw the same words, and a key for each would add nothing.

        Args:
            labels: What they are for.
        """
        if self.is_seeded:
            return lambda client: self.keystream(*labels, client)
        shared = dp.Keystream()
        return lambda _: shared

    def secret(self, *labels: str | int) -> bytes:
        """32 secret bytes, such as a seed that the protocol would have shared.

        Args:
            labels: What they are for.
        """
        root = self._root
        return (secagg.system_entropy if root is None else root.derive("secret", *labels))(32)

    def protocol(self, *labels: str | int) -> secagg.SeededEntropy | None:
        """Entropy for one round's keys and masks; None stands for the operating system's.

        Args:
            labels: What it is for.
        """
        root = self._root
        return None if root is None else root.derive("protocol", *labels)

    def dice(self, *labels: str | int) -> np.random.Generator:
        """The simulator's own choices, such as who drops out: protects nobody.

        Args:
            labels: What they are for.
        """
        root = self._root
        return np.random.default_rng(
            None if root is None else int.from_bytes(root.derive("dice", *labels)(16), "big")
        )
