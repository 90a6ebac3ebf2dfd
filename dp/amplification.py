"""What drawing clients at random is worth in Renyi DP, for noise whose loss distribution is not known.

The bound holds for any noise that is symmetric about 0, in any dimension: then the divergence of the mixture from the
noise alone is the larger of the two directions, and only that one is computed.

Source: Mironov, Talwar, Zhang 2019 (1908.10530), section 3; Zhu and Wang 2019 (1905.10822), theorem 8.
Not here: the Gaussian, whose loss distribution does better (`dp.pld`); conversion to an epsilon (`dp.renyi`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["poisson_renyi"]


def poisson_renyi(curve: Callable[[int], float], rate: float, order: int) -> float:
    """Renyi divergence of a Poisson-sampled release, at an integer order.

    Args:
        curve: Bound on the divergence of the release that is not sampled, at integer orders from 2.
        rate: q, in (0, 1].
        order: alpha, at least 2.

    Returns:
        log((1-q)^(a-1) (a q - q + 1) + sum_{l=2}^a C(a,l) (1-q)^(a-l) q^l e^((l-1) curve(l))) / (a - 1).

    >>> round(poisson_renyi(lambda order: order / 2, 0.1, 2), 6)
    0.017037
    """
    if rate == 1:
        return curve(order)
    stay, draw = math.log1p(-rate), math.log(rate)
    terms = [(order - 1) * stay + math.log1p(order * rate - rate)]
    for taken in range(2, order + 1):
        choose = math.lgamma(order + 1) - math.lgamma(taken + 1) - math.lgamma(order - taken + 1)
        terms.append(choose + (order - taken) * stay + taken * draw + (taken - 1) * curve(taken))
    largest = max(terms)
    total = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
    return max(0.0, total) / (order - 1)
