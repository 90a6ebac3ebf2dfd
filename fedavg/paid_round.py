"""A round that is paid for before anybody is invited: reserve, run, then settle; or refund what released nothing.

Order, which the guarantees rest on: the ledger reserves the cost, or refuses it, before anybody is drawn; a round
that ends without a sum is refunded only while no share that unmasks was answered, and no later round of the same run
was charged, so that turns in a fixed order are never given twice; any other failure, a crash among them, leaves it
charged. Either way a retry is a new round number with a fresh draw, fresh noise and a fresh charge.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dp
import secagg
from fedavg.aggregation import Record
from fedavg.errors import RoundAborted

__all__ = ["PaidRound", "paid_round"]

_operator_logger = logging.getLogger("fedavg.operator")


class PaidRound:
    """A round under way: its number, and the watch on whether anything could have been released."""

    def __init__(self, ledger: dp.Ledger, number: int, record: Record | None) -> None:
        self.number = number
        self._ledger, self._record, self._answered = ledger, record, False

    def record(self, stage: str, sender: int, message: bytes) -> None:
        """To be called with everything that the server receives; passes it on to the user's own record."""
        self._answered = self._answered or stage == "unmask"
        if self._record is not None:
            self._record(stage, sender, message)

    def released(self) -> None:
        """Part of the round's result is out: whatever happens from here on, the round stays charged."""
        self._answered = True

    def settle(self, *, survivors: int, model_hash: bytes) -> None:
        """The round gave a sum: note how many were in it, and what was released."""
        self._ledger.settle(self.number, survivors=survivors, model_hash=model_hash, timestamp=time.time())

    def abort(self, error: secagg.SecAggError) -> RoundAborted:
        """The round gave none: refund it if nothing can have been released; the error to raise, naming nobody."""
        few = isinstance(error, secagg.TooFewClients)
        cause = str(error) if few else "a client's message could not be used (the operator's log names it)"
        if not few:
            _operator_logger.warning("round %s: %s", self.number, error)
        # A later round of this run, another process's, has had its turn counted on from this one's.
        charged = self._answered or self._ledger.turn(self.number) != self._ledger.charged
        if not charged:
            self._ledger.refund(self.number, reason=cause, timestamp=time.time())
        fate = "stays charged" if charged else "was refunded"
        return RoundAborted(f"round {self.number} ended without a sum: {cause}; it {fate}", charged=charged)


@contextmanager
def paid_round(
    ledger: dp.Ledger, *, record: Record | None = None, changed: Callable[[], object] = lambda: None
) -> Iterator[PaidRound]:
    """Charge one round and run it: the body draws, sums with `record=paid.record`, and settles.

    Args:
        ledger: Attached to the run.
        record: The user's own, called with (stage, sender, bytes).
        changed: Called after each change of the ledger.

    Raises:
        dp.BudgetExceeded: the round would pass a budget; nothing was drawn or charged.
        RoundAborted: in place of an error of the protocol; says whether the round was charged.
    """
    paid = PaidRound(ledger, ledger.reserve(timestamp=time.time()), record)
    changed()
    try:
        yield paid
    except secagg.SecAggError as error:
        raise paid.abort(error) from error
    finally:
        changed()
