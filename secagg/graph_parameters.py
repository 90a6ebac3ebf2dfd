"""How many neighbours and which threshold: the conditions that k and t must meet, and the smallest that do.

Bell et al. 2020, section 3.3 and appendix (semi-honest and malicious conditions), with one of our own (E5). For
n clients let C = floor(corruption * n), D = floor(dropout * n) and H(N, K, k) be the hypergeometric number of
marked ones among k drawn from N of which K are marked. With sigma security bits and eta failure bits:

- E1 privacy: n Pr[H(n-1, C, k) >= t] <= 2^-(sigma+1): no neighbourhood holds t corrupted clients;
- E2 connectivity: n (n-k-1)/2 prod_{i<k} (C+D-i)/(n-i) < 2^-(sigma+1), vacuous where k > C+D: the honest
  clients that stay form one connected graph, so that only one sum is left;
- E3 correctness: n Pr[H(n, n-D, k) <= t-1] <= 2^-eta: no neighbourhood loses so many that t fail;

and against a malicious server, which may try 2^80 rosters before it shows one:

- E4: n Pr[H(n-1, C, k) >= 2t-(k+1)] <= 2^-(sigma+81): no two sets of t holders share corrupted ones only;
- E5: (n^2/2) Pr[H(n, C, k/2) >= t-k/2-1]^2 <= 2^-(sigma+81), vacuous where 2(t-k/2-1) > C: the ring cannot be
  cut in two by dropping two half-windows, each part with t holders for everyone.

E1, E4 and E5 bound t from below by L(k), E3 from above by U(k); both grow with k, and E2 holds from some k on.
The search leaps: where L(k) > U(k), no k' with U(k') < L(k) can do. E3 counts honest dropouts only: to survive
C silent saboteurs as well, ask for dropout + corruption as the dropout (k about doubles).

Not here: the graph itself (`secagg.graph`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from secagg.errors import ParameterError

__all__ = ["Adversary", "GraphParameters", "complete_threshold", "graph_parameters", "unmet_conditions"]

Adversary = Literal["semi_honest", "malicious"]

_GRINDING_BITS = 80  # a rushing server with sybils can try this many rosters, in bits
_SLACK = 1e-9  # floor(.29 * 100) is 28 in floats


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphParameters:
    """A sparse graph that meets the conditions.

    Attributes:
        clients: n.
        neighbours: k, even.
        threshold: t, of the k+1 holders of a client's shares.
        corrupted: C, how many clients may collude with the server.
        dropped: D, how many honest clients may go silent.
    """

    clients: int
    neighbours: int
    threshold: int
    corrupted: int
    dropped: int

    @property
    def honest_floor(self) -> int:
        """Honest clients in the one sum a malicious server can get: floor(n/(1.5k+1)) (t - X), X = 2t-k-2.

        Everyone in the sum has t of its window of k+1 with it, of whom at most X are corrupted (E4). The floor counts
        windows that share no place. Whoever has nobody with it on the k/2 places to one side has t-k/2-1 corrupted
        there, and E5 rules out two such half-windows that share no place. So every gap between clients in the sum is
        shorter than k/2, except one, shorter than k, for which a server that may try 2^80 rosters finds a ring.

        Hence the next window without a place in common begins at most 1.5k+1 places ahead, and once k/2 further. It
        looks as if those k/2 had to come off the ring first, floor((n - k/2)/(1.5k+1)); they need not: windows go on
        until fewer than k+1 places are left to the first one, so m of them need (m-1)(1.5k+1) + k/2 + k+1 places, which
        is m (1.5k+1) with the long gap, and k/2 less without it.

        Bell et al. 2020, section 4, with the window of a ring; a sketch, not a proof. No client can check how
        many survive on the whole ring, so nothing larger may be promised.
        """
        corrupted_near = 2 * self.threshold - self.neighbours - 2
        return 2 * self.clients // (3 * self.neighbours + 2) * (self.threshold - corrupted_near)


def graph_parameters(
    n: int,
    *,
    dropout: float,
    corruption: float,
    adversary: Adversary = "semi_honest",
    security_bits: int = 40,
    failure_bits: int = 30,
    smallest_roster: int | None = None,
) -> GraphParameters:
    """Return the sparse graph with the fewest neighbours that meets every condition.

    Guarantee: against a server that colludes with at most floor(corruption * n) clients, chosen before the
    ring's order is known, E1 and E2 (and E4 and E5 for a malicious one) fail with the probabilities above.

    Args:
        n: clients, 2 to 10^6 and beyond.
        dropout: fraction in [0, 1) of honest clients that may go silent.
        corruption: fraction in [0, 1) that may collude with the server.
        adversary: "semi_honest" or "malicious".
        security_bits: sigma.
        failure_bits: eta.
        smallest_roster: fewest clients the round goes on with after advertising, n where it is left out. Privacy
            must hold for them too: the corrupted are the same number among fewer.

    Raises:
        ParameterError: a value out of range, or no even k < n does; then use the complete graph.

    Source: Bell et al. 2020, section 3.3.

    >>> found = graph_parameters(1000, dropout=0.05, corruption=0.05)
    >>> found.neighbours, found.threshold
    (34, 18)
    """
    limits = _Limits.of(n, dropout, corruption, adversary, security_bits, failure_bits)
    small = limits.shrunk(n if smallest_roster is None else smallest_roster)
    k = _first_even(2, small.clients - 1, lambda k: limits.is_connected(k) and small.is_connected(k))
    while k is not None and k < small.clients:
        t = max(limits.least_threshold(k), small.least_threshold(k))
        if t <= limits.most_threshold(k):
            return GraphParameters(
                clients=n, neighbours=k, threshold=t, corrupted=limits.corrupted, dropped=limits.dropped
            )
        k = limits.first_that_allows(t, k + 2)
    raise ParameterError(
        f"no sparse graph on {n} clients withstands {limits.corrupted} corrupted ({adversary}) and "
        f"{limits.dropped} dropped at 2^-{security_bits} and 2^-{failure_bits}; use graph='complete', more "
        "clients, or less dropout or corruption"
    )


def complete_threshold(n: int, *, dropout: float, corruption: float) -> int:
    """Return t = floor((n + C)/2) + 1 of the complete graph: two sets of t share an honest client.

    Raises:
        ParameterError: a value out of range, or fewer than t clients stay.

    >>> complete_threshold(100, dropout=0.1, corruption=0.1)
    56
    """
    limits = _Limits.of(n, dropout, corruption, "semi_honest", 0, 0)
    threshold = (n + limits.corrupted) // 2 + 1
    if n - limits.dropped < threshold:
        raise ParameterError(
            f"{n - limits.dropped} of {n} clients stay and the complete graph needs {threshold} with "
            f"{limits.corrupted} corrupted; lower dropout or corruption, or plan more clients"
        )
    return threshold


def unmet_conditions(
    n: int,
    neighbours: int,
    threshold: int,
    *,
    dropout: float,
    corruption: float,
    adversary: Adversary = "semi_honest",
    security_bits: int = 40,
    failure_bits: int = 30,
) -> tuple[str, ...]:
    """Return the names of the conditions that a given sparse graph does not meet, of E1 to E5.

    Arguments are those of `graph_parameters`, with the k `neighbours` and the `threshold` t to be judged.

    Raises:
        ParameterError: a value out of range.

    >>> unmet_conditions(100, 20, 11, dropout=0.1, corruption=0.1)
    ('E3',)
    """
    limits = _Limits.of(n, dropout, corruption, adversary, security_bits, failure_bits)
    met = {
        "E1": threshold >= limits.least_for_privacy(neighbours),
        "E2": limits.is_connected(neighbours),
        "E3": threshold <= limits.most_threshold(neighbours),
    }
    if adversary == "malicious":
        met["E4"] = threshold >= limits.least_for_one_set(neighbours)
        met["E5"] = threshold >= limits.least_for_one_ring(neighbours)
    return tuple(name for name, is_met in met.items() if not is_met)


@dataclass(frozen=True)
class _Limits:
    """The conditions for fixed n, C, D; each method is monotone in k."""

    clients: int
    corrupted: int
    dropped: int
    adversary: Adversary
    security_bits: int
    failure_bits: int

    @classmethod
    def of(
        cls,
        n: int,
        dropout: float,
        corruption: float,
        adversary: Adversary,
        security_bits: int,
        failure_bits: int,
    ) -> _Limits:
        """Check ranges and turn fractions into counts."""
        corrupted, dropped = (math.floor(share * n + _SLACK) for share in (corruption, dropout))
        if n < 2 or not 0 <= corrupted < n or not 0 <= dropped < n:
            raise ParameterError(
                f"{n} clients, dropout {dropout} and corruption {corruption} were given; "
                "use at least 2 clients and fractions of at least 0 and below 1"
            )
        if adversary not in ("semi_honest", "malicious") or security_bits < 0 or failure_bits < 0:
            raise ParameterError(
                f"adversary {adversary!r} at 2^-{security_bits} and 2^-{failure_bits} was given; "
                "use 'semi_honest' or 'malicious' and bits of at least 0"
            )
        return cls(n, corrupted, dropped, adversary, security_bits, failure_bits)

    def shrunk(self, roster: int) -> _Limits:
        """The conditions once only `roster` clients advertised: those missing are no longer there to drop out."""
        if not max(2, self.clients - self.dropped) <= roster <= self.clients or self.corrupted >= roster:
            raise ParameterError(
                f"a smallest roster of {roster} of {self.clients} clients was given; use"
                f" {max(2, self.clients - self.dropped, self.corrupted + 1)} to {self.clients}"
            )
        return replace(self, clients=roster, dropped=self.dropped - (self.clients - roster))

    def least_threshold(self, k: int) -> int:
        """L(k): the smallest t that keeps the inputs private."""
        least = self.least_for_privacy(k)
        if self.adversary == "malicious":
            least = max(least, self.least_for_one_set(k), self.least_for_one_ring(k))
        return max(2, least)

    def least_for_privacy(self, k: int) -> int:
        """E1."""
        bound = -(self.security_bits + 1) - math.log2(self.clients)
        return _first_rare(self.clients - 1, self.corrupted, k, bound)

    def least_for_one_set(self, k: int) -> int:
        """E4."""
        bound = -(self.security_bits + _GRINDING_BITS + 1) - math.log2(self.clients)
        corrupted_near = _first_rare(self.clients - 1, self.corrupted, k, bound)
        return -(-(corrupted_near + k + 1) // 2)

    def least_for_one_ring(self, k: int) -> int:
        """E5."""
        bound = (1 - (self.security_bits + _GRINDING_BITS + 1)) / 2 - math.log2(self.clients)
        in_a_half_window = _first_rare(self.clients, self.corrupted, k // 2, bound)
        return min(in_a_half_window, self.corrupted // 2 + 1) + k // 2 + 1

    def most_threshold(self, k: int) -> int:
        """U(k), E3: at most t-1 of k stay exactly when at least k-t+1 of them are among the D dropped."""
        bound = -self.failure_bits - math.log2(self.clients)
        return k + 1 - _first_rare(self.clients, self.dropped, k, bound)

    def first_that_allows(self, t: int, low: int) -> int | None:
        """Return the smallest even k from `low` on with U(k) >= t."""
        return _first_even(low, self.clients - 1, lambda k: self.most_threshold(k) >= t)

    def is_connected(self, k: int) -> bool:
        """E2."""
        lost = self.corrupted + self.dropped
        if k > lost or k >= self.clients - 1:
            return True
        pairs = math.log2(self.clients) + math.log2(self.clients - k - 1) - 1
        all_lost = (_log_choose(lost, k) - _log_choose(self.clients, k)) / math.log(2)
        return pairs + all_lost < -(self.security_bits + 1)


def _first_even(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest even number in low..high (low even) where a monotone predicate holds."""
    failed, step = low - 2, 2
    while failed + step <= high and not holds(failed + step):
        failed, step = failed + step, 2 * step
    found = failed + step
    if found > high:
        found = high - high % 2
        if found <= failed or not holds(found):
            return None
    while found - failed > 2:
        middle = (failed + found) // 4 * 2
        failed, found = (failed, middle) if holds(middle) else (middle, found)
    return found


def _first_rare(population: int, marked: int, draws: int, log2_bound: float) -> int:
    """Return the smallest h with Pr[H(population, marked, draws) >= h] <= 2^log2_bound."""
    low, high = marked * draws // population + 1, min(marked, draws) + 1
    while low < high:
        middle = (low + high) // 2
        if _is_rare(population, marked, draws, middle, log2_bound):
            high = middle
        else:
            low = middle + 1
    return high


def _is_rare(population: int, marked: int, draws: int, least: int, log2_bound: float) -> bool:
    """Say whether Pr[H >= least] <= 2^log2_bound, for `least` above the mean.

    The tail is its first term times 1 + r_1 + r_1 r_2 + ..., with falling ratios r < 1; the sum stops as soon
    as what it has, or that plus a geometric bound on the rest, decides.
    """
    unmarked = population - marked
    first = _log_choose(marked, least) + _log_choose(unmarked, draws - least) - _log_choose(population, draws)
    room = math.exp2(min(log2_bound - first / math.log(2), 1000.0))
    total = term = 1.0
    for h in range(least, min(marked, draws)):
        ratio = (marked - h) * (draws - h) / ((h + 1) * (unmarked - draws + h + 1))
        if total + term * ratio / (1 - ratio) <= room:
            return True
        if total > room:
            return False
        term *= ratio
        total += term
    return total <= room


def _log_choose(n: int, k: int) -> float:
    """Return ln of the binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
