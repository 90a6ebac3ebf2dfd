"""What the pieces of a round cost on this machine, one by one; `docs/scale.md` multiplies them.

    python benchmarks/unit_costs.py

Prints one JSON object: CPU microseconds of each operation, or nanoseconds a value where the name says so.
"""

import json
import os
import statistics
import time

import numpy as np

from secagg import keys
from secagg.binding import associated_data, vector_fields
from secagg.entropy import system_entropy
from secagg.graph import ring_order
from secagg.identities import Identity, IdentityRoster
from secagg.masking import apply_masks
from secagg.parameters import Vector
from secagg.ring import add_packed, pack
from secagg.prime_field import lagrange_weights
from secagg.shamir import reconstruct, share

LENGTH = 2**20
CONTEXT = bytes(32)


def microseconds(work, calls):
    """Median over nine runs of the CPU time of one call."""
    spent = []
    for _ in range(9):
        begin = time.process_time()
        for _ in range(calls):
            work()
        spent.append((time.process_time() - begin) / calls)
    return 1e6 * statistics.median(spent)


def main():
    own, peer = keys.new_channel_pair(os.urandom(32)), keys.new_channel_pair(os.urandom(32)).public
    root = keys.channel_root(own, peer, CONTEXT, 2)
    fields = [vector_fields(0, Vector("v", LENGTH, 26))]
    ends = {"me": 1, "them": 2}
    row, key, associated = bytes(72), os.urandom(32), associated_data(CONTEXT, 1, 2)
    sealed = keys.seal(key, row, associated)
    words = np.zeros(LENGTH, np.uint32)
    packed = pack(words, 26)
    masks = [(os.urandom(32), 1) for _ in range(20)]
    secrets = [os.urandom(32) for _ in range(2)]
    dealt = share(secrets, threshold=21, shares=39, entropy=system_entropy)
    points = tuple(range(1, 22))
    fresh = iter([tuple(range(first, first + 21)) for first in range(1, 10_000)])
    identity = Identity.generate()
    roster = IdentityRoster.of({1: identity})
    signature = identity.sign(b"statement")
    lagrange_weights(points)
    costs = {
        "x25519 key pair": microseconds(lambda: keys.new_channel_pair(os.urandom(32)), 200),
        "channel keys of a pair (one exchange)": microseconds(
            lambda: keys.directional(
                "seal", keys.channel_root(own, peer, CONTEXT, 2), own.public, peer, **ends
            ),
            200,
        ),
        "mask key of a pair (one exchange)": microseconds(
            lambda: keys.mask_keys(own, peer, CONTEXT, 1, 2, fields), 200
        ),
        "tag keys of a pair": microseconds(
            lambda: keys.directional("tag", root, own.public, peer, **ends), 500
        ),
        "seal a row of shares": microseconds(lambda: keys.seal(key, row, associated), 500),
        "open a row of shares": microseconds(lambda: keys.open_sealed(key, sealed, associated), 500),
        "sign": microseconds(lambda: identity.sign(b"statement"), 200),
        "verify": microseconds(lambda: roster.verify(1, signature, b"statement"), 200),
        "share two secrets, 21 of 39": microseconds(
            lambda: share(secrets, threshold=21, shares=39, entropy=system_entropy), 200
        ),
        "recover two secrets from 21": microseconds(lambda: reconstruct(points, dealt[:, :21]), 200),
        "lagrange weights of a new set of 21": microseconds(lambda: lagrange_weights(next(fresh)), 200),
        "order of a ring of 10,000": microseconds(lambda: ring_order(10_000, os.urandom(32)), 3),
        "mask, ns a value": microseconds(lambda: apply_masks(words, masks, bits=26), 1) * 1e3 / LENGTH / 20,
        "pack, ns a value": microseconds(lambda: pack(words, 26), 5) * 1e3 / LENGTH,
        "add a packed vector, ns a value": microseconds(lambda: add_packed(words, packed, 26), 5)
        * 1e3
        / LENGTH,
    }
    print(json.dumps({name: round(cost, 3) for name, cost in costs.items()}, indent=1))


if __name__ == "__main__":
    main()
