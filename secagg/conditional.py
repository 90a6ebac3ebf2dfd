"""Conditional secrets: extra seeds of every client, revealed by a public rule on who survived.

A client shares m extra seeds as it shares its self-mask seed: same holders, same threshold, each its own
polynomial and commitment. When the round closes, every holder evaluates the rule on the sets it knows itself
(in malicious mode: the sets it tagged) and answers for the seeds the rule names, of every client in the sum,
also of one that fell silent after its input. What the seeds are for is the application's affair; shares of
noise that is taken off again when more clients survive than feared is one use (Jiang et al. 2024). Invariants:

- a rule is pure: equal parameters and sets give equal answers on every machine; its name is in the session;
- nobody outside the sum ever has a seed revealed, and nobody sends a seed whole;
- a rule counts those missing from the *planned* clients, `parameters.clients - survivors`.

Not here: the shares themselves (`secagg.client`, `secagg.recovery`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from secagg.errors import ParameterError
from secagg.messages import Mask
from secagg.parameters import RoundParameters

__all__ = ["RevealRule"]


@dataclass(frozen=True, slots=True)
class RevealRule:
    """Which extra seeds of the survivors are revealed.

    Attributes:
        name: name and version; equal to `RoundParameters.reveal_rule`.
        choose: called with the parameters and with U2 and U3 as boolean arrays over the sorted roster;
            returns seed numbers out of 1..m, or raises `TooFewClients` to refuse the round.
    """

    name: str
    choose: Callable[[RoundParameters, Mask, Mask], Collection[int]]

    def revealed(self, parameters: RoundParameters, shared: Mask, survivors: Mask) -> list[int]:
        """The numbers of the seeds to reveal, ascending.

        Args:
            parameters: The round's.
            shared: U2, a bool for each client of the roster.
            survivors: U3, likewise.

        Raises:
            ParameterError: the rule named a seed that does not exist.
        """
        chosen = sorted(set(self.choose(parameters, shared.copy(), survivors.copy())))
        if chosen and not 1 <= chosen[0] <= chosen[-1] <= parameters.conditional_secrets:
            raise ParameterError(
                f"rule {self.name!r} named seeds {chosen}; there are 1 to {parameters.conditional_secrets}"
            )
        return chosen


def checked_rule(parameters: RoundParameters, rule: RevealRule | None) -> RevealRule:
    """The rule of a round; the rule that reveals nothing where the round has no extra seeds.

    Raises:
        ParameterError: the rule is not the one that the parameters name.
    """
    rule = rule or RevealRule("", lambda parameters, shared, survivors: ())
    if rule.name != parameters.reveal_rule:
        raise ParameterError(
            f"the rule is {rule.name!r} and the round's is {parameters.reveal_rule!r}; "
            "give the rule that the parameters name"
        )
    return rule
