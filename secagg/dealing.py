"""A dealer's shares: made in one batch, hashed for the server, one plain row for each holder.

Bonawitz et al. 2017, Fig. 4, round 1. The secrets of a client are, by index, its self-mask seed, the seed of
its mask key and its conditional secrets. Row and hash row of a holder run over the secrets. Invariants:

- in malicious mode the server gets a salted hash of every share, the holder the salt: afterwards neither the
  dealer nor the holder can change what was dealt without the server seeing whose doing it was;
- the salt and the share of one secret say nothing about those of another.

Not here: sealing (`secagg.keys`), recovery and blame (`secagg.recovery`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secagg import shamir
from secagg.binding import share_hash
from secagg.entropy import Entropy
from secagg.messages import Codec

__all__ = ["MASK_KEY", "SELF_MASK", "deal", "hash_row", "hash_rows"]

SELF_MASK, MASK_KEY, CONDITIONAL = 0, 1, 2


def deal(
    secrets: Sequence[bytes], codec: Codec, *, threshold: int, holders: int, entropy: Entropy
) -> list[bytes]:
    """Share the secrets and return one row of records for each holder, in the holders' order."""
    shares = shamir.share(secrets, threshold=threshold, shares=holders, entropy=entropy)
    records = shares.swapaxes(0, 1).astype("<u2").view(np.uint8)
    if codec.salt_bytes:
        salts = np.frombuffer(entropy(holders * len(secrets) * codec.salt_bytes), np.uint8)
        records = np.concatenate([salts.reshape(holders, len(secrets), -1), records], axis=2)
    block, width = records.tobytes(), codec.plain_row_bytes
    return [block[start : start + width] for start in range(0, len(block), width)]


def hash_rows(
    rows: Sequence[bytes], codec: Codec, context: bytes, dealer: int, holders: Sequence[int]
) -> list[bytes]:
    """The hash row of every holder; none in semi-honest mode."""
    if not codec.salt_bytes:
        return []
    return [hash_row(row, codec, context, dealer, holder) for row, holder in zip(rows, holders, strict=True)]


def hash_row(row: bytes, codec: Codec, context: bytes, dealer: int, holder: int) -> bytes:
    """Hash every record of a holder's row; empty in semi-honest mode, where there are no salts."""
    if not codec.salt_bytes:
        return b""
    return b"".join(
        share_hash(context, dealer, holder, index, record[: codec.salt_bytes], record[codec.salt_bytes :])
        for index, record in enumerate(codec.record(row, index) for index in range(codec.secrets))
    )
