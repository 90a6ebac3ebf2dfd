"""Running a judged program: at the server between the sums, at each client before one.

What a client does before a stage is a value, `ClientStage`, that can be taken to where the client is. Whatever happens
there, it gives something of the stage's one form: a function that fails, a filter that leaves the client out, a value
of another shape than its type or that is not finite, all give zeros (rule 3).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fedavg.client_data import ClientData
from fedavg.client_work import ClientLog
from fedavg.core.graph import Node, upstream
from fedavg.core.local import checker
from fedavg.core.plan import Aggregation, Program
from fedavg.core.types import (
    CLIENTS,
    StructType,
    TensorType,
    Type,
    size,
    struct_of,
    unbounded,
)
from fedavg.core.values import Vector, clipped, copied, finite, flat, flatten, unflatten
from fedavg.errors import StepError

__all__ = ["Arguments", "ClientStage", "ServerState", "exact_sums", "released"]

_ABSENT = object()
_Operation = Callable[..., Any]


class ServerState:
    """What is known at the server while a program runs: the values of all expressions that are not raw."""

    def __init__(self, roots: Sequence[Node], given: Mapping[Node, Any]) -> None:
        self._order = tuple(upstream(*roots))
        self._values: dict[Node, Any] = dict(given)
        self.advance({})

    def advance(self, sums: Mapping[Node, Any]) -> None:
        """Take in what a stage released, and compute all that follows from it."""
        self._values.update(sums)
        for node in self._order:
            here = node.label == "public" or node.type.placement != CLIENTS
            ready = all(before in self._values for before in node.inputs)
            if here and ready and node not in self._values and node.op not in ("parameter", "sum", "mean"):
                self._values[node] = _operation(node)(*(copied(self._values[n]) for n in node.inputs))

    def __getitem__(self, node: Node) -> Any:
        return self._values[node]

    def __contains__(self, node: object) -> bool:
        return node in self._values


@dataclass(frozen=True, eq=False)
class Arguments:
    """What the clients give to a program: `count` of them, their data by the name of each parameter at CLIENTS."""

    count: int
    by_name: Mapping[str, ClientData]

    def __len__(self) -> int:
        return self.count

    def part(self, positions: Sequence[int]) -> Arguments:
        """The clients at these positions only; they keep their positions."""
        return Arguments(len(positions), {name: data.part(positions) for name, data in self.by_name.items()})

    def id_of(self, position: int) -> Any:
        """The id of the client at a position."""
        return next((data.client_ids[position] for data in self.by_name.values()), position)

    def same(self, other: Arguments | None) -> bool:
        """Whether they are the very same populations."""
        if other is None or (self.count, self.by_name.keys()) != (other.count, other.by_name.keys()):
            return False
        return all(data is other.by_name[name] for name, data in self.by_name.items())


@dataclass(frozen=True, eq=False)
class ClientStage:
    """One stage's work for each client of a cohort: a `fedavg.client_work.Work`.

    Attributes:
        program: What is summed, stage by stage.
        number: Which stage, from 0.
        clients: The population; positions are the protocol's ids.
        told: Values of the expressions that the server knows and the clients need, by their places in the graph.
        zeros: What a client with nothing to say sends.
        contributes: Position of each invited client, and whether its data is in the sum: never published.
        log: Where a client notes why it sends zeros.
    """

    program: Program
    number: int
    clients: Arguments
    told: Mapping[int, Any]
    zeros: Mapping[str, Vector] = field(repr=False)
    contributes: Mapping[int, bool] = field(repr=False)
    log: ClientLog = field(repr=False)

    @classmethod
    def begin(
        cls,
        program: Program,
        number: int,
        state: ServerState,
        clients: Arguments,
        *,
        zeros: Mapping[str, Vector],
        contributes: Mapping[int, bool],
        log: ClientLog,
    ) -> ClientStage:
        """Take from the server's state what the clients need for a stage."""
        roots = _inputs(program[number])
        needed = set(_until(roots, state))
        told = {
            place: state[node]
            for place, node in enumerate(upstream(*roots))
            if node in needed and node in state
        }
        return cls(program, number, clients, told, zeros, contributes, log)

    @classmethod
    def of(
        cls,
        kept: tuple[Any, ...],
        clients: Arguments,
        terms: tuple[Any, ...],
        *,
        contributes: Mapping[int, bool],
        log: ClientLog,
    ) -> ClientStage:
        """See `fedavg.client_work.Work`."""
        (program,), (number, told, zeros) = kept, terms
        return cls(program, number, clients, told, zeros, contributes, log)

    @property
    def kept(self) -> tuple[Any, ...]:
        """See `fedavg.client_work.Work`."""
        return (self.program,)

    @property
    def terms(self) -> tuple[Any, ...]:
        """See `fedavg.client_work.Work`."""
        return self.number, self.told, self.zeros

    @property
    def stage(self) -> tuple[Aggregation, ...]:
        """What is summed."""
        return self.program[self.number]

    def __call__(self, position: int) -> Mapping[str, Vector]:
        """The blocks of the client at a position, before they are clipped."""
        if not self.contributes[position]:
            return self.zeros
        try:
            return self._blocks(position)
        except BaseException as error:  # noqa: BLE001
            # Whatever goes wrong at a client concerns that client alone: an error that got out would tell whose data
            # it was. Its words stay there too, and only ours are sure to have some.
            words = f": {error}" if isinstance(error, StepError) else ""
            self.log(self.clients.id_of(position), type(error).__name__ + words)
            return self.zeros

    @cached_property
    def _blocks(self) -> Callable[[int], Mapping[str, Vector]]:
        """From a position to that client's blocks; raises whatever goes wrong there."""
        values_of, (_, _, ends), zeros = self._values, self._steps, self.zeros
        packings = [_packing(aggregation) for aggregation in self.stage]
        if len(packings) == len(ends[0]) == 1 and not self._filtered:
            (pack,), ((end,),) = packings, ends

            def block(position: int) -> Mapping[str, Vector]:
                found: Mapping[str, Vector] = pack(values_of(position)[end])
                return found if len(found) == len(zeros) else {**zeros, **found}

            return block

        def blocks(position: int) -> Mapping[str, Vector]:
            found = dict(zeros)
            for packing, given in zip(packings, self.inputs(position), strict=True):
                if given is not None:
                    found.update(packing(*given))
            return found

        return blocks

    def inputs(self, position: int) -> list[list[Any] | None]:
        """What the client gives to each aggregation; None where a filter left it out.

        Raises:
            StepError: something of the client's failed.
        """
        values, (_, _, ends) = self._values(position), self._steps
        given = [[values[i] for i in end] for end in ends]
        return [None if any(value is _ABSENT for value in own) else own for own in given]

    @cached_property
    def _values(self) -> Callable[[int], list[Any]]:
        """From a position to the values of all slots at that client."""
        steps, slots, _ = self._steps
        # Every client has its own copies: what one writes into them no other must read.
        shared = [slot for slot, node in enumerate(self._nodes) if node in self._public]

        def values_of(position: int) -> list[Any]:
            values = slots.copy()
            for slot in shared:
                values[slot] = copied(values[slot])
            for slot, operation in steps:
                values[slot] = operation(position, values)
            return values

        return values_of

    @cached_property
    def _public(self) -> Mapping[Node, Any]:
        order = list(upstream(*_inputs(self.stage)))
        return {order[place]: value for place, value in self.told.items()}

    @cached_property
    def _nodes(self) -> list[Node]:
        return _until(_inputs(self.stage), self._public)

    @cached_property
    def _filtered(self) -> bool:
        return any(node.op == "filter" for node in self._nodes)

    @cached_property
    def _steps(self) -> tuple[list[tuple[int, _Operation]], list[Any], list[list[int]]]:
        """Steps over numbered slots, the slots as they begin, and where each aggregation's inputs end up."""
        slots: list[Any] = []
        steps = []
        index: dict[Node, int] = {}
        for node in self._nodes:
            index[node] = len(slots)
            slots.append(self._public.get(node))
            if node in self._public:
                continue
            if node.op == "parameter":
                steps.append((index[node], _fetch(self.clients.by_name[node.detail], node)))
            else:
                inputs = [index[before] for before in node.inputs]
                steps.append((index[node], _on_client(_operation(node), inputs, self._filtered)))
        return steps, slots, [[index[node] for node in a.node.inputs] for a in self.stage]

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.program, self.number, self.clients, self.told, self.zeros, self.contributes, self.log)
        return type(self), given


def exact_sums(work: ClientStage, count: int) -> dict[Node, Any]:
    """What an insecure context puts in the place of noised sums: exact ones, of everybody, clipped where asked.

    Raises:
        StepError: a client failed; says which.
    """
    sums: list[Any] = [0.0] * len(work.stage)
    weights = [0.0] * len(work.stage)
    for position in range(count):
        for i, (aggregation, given) in enumerate(zip(work.stage, work.inputs(position), strict=True)):
            if given is not None:
                weight = 1.0
                if len(given) > 1:
                    weight = min(max(float(given[1]), 0.0), aggregation.weight_bound or np.inf)
                sums[i] = sums[i] + weight * _clipped_parts(aggregation, given[0])
                weights[i] += weight
    return {
        a.node: unflatten(
            total / (1.0 if a.node.op == "sum" else weight if len(a.node.inputs) > 1 else float(count)),
            a.node.type.member,
        )
        for a, total, weight in zip(work.stage, map(np.asarray, sums), weights, strict=True)
    }


def _clipped_parts(aggregation: Aggregation, value: Any) -> Vector:
    vector = flatten(value, aggregation.node.inputs[0].type.member)
    ends = np.cumsum([size(kind) for _, kind in aggregation.parts])[:-1]
    parts = zip(np.split(vector, ends), aggregation.parts, strict=True)
    return np.concatenate([clipped(part, kind.l2) for part, (_, kind) in parts])


def _inputs(stage: tuple[Aggregation, ...]) -> list[Node]:
    return [node for aggregation in stage for node in aggregation.node.inputs]


def _until(roots: Sequence[Node], known: Container[Node]) -> list[Node]:
    """What clients must compute for the roots, inputs first, down to what is known."""
    needed: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(() if node in known else node.inputs)
    return [node for node in upstream(*roots) if node in needed]


def _fetch(data: ClientData, node: Node) -> _Operation:
    check, ids, for_client = checker(node.type.member), data.client_ids, data.for_client

    def fetch(position: int, _: list[Any]) -> Any:
        # Its own, even where one object was given to several.
        return copied(check(for_client(ids[position])))

    return fetch


def _on_client(operation: _Operation, inputs: list[int], filtered: bool) -> _Operation:
    """An operation on slots; what a filter left out stays out."""
    if not filtered:
        if len(inputs) == 1:
            (only,) = inputs
            return lambda _, values: operation(values[only])
        return lambda _, values: operation(*[values[i] for i in inputs])

    def run(_: int, values: list[Any]) -> Any:
        given = [values[i] for i in inputs]
        return _ABSENT if any(value is _ABSENT for value in given) else operation(*given)

    return run


def _operation(node: Node) -> _Operation:
    """What an expression does with the values of its inputs."""
    match node.op:
        case "value":
            return lambda: node.detail
        case "eval":
            return _function(node, None)
        case "map":
            return _function(node, node.inputs[0].type.member)
        case "filter":
            keep = _function(node, node.inputs[0].type.member, TensorType("bool"))
            return lambda value: value if keep(value) else _ABSENT
        case "zip":
            return lambda *items: _zipped(node.type.member, items)
        case "select":
            return lambda value: (list(value.values()) if isinstance(value, Mapping) else value)[node.detail]
        case "clip":
            kind, bound = node.type.member, node.detail
            return lambda value: unflatten(clipped(flatten(value, kind), bound), unbounded(kind))
        case _:
            return lambda value: value


def _zipped(kind: Type, items: tuple[Any, ...]) -> Any:
    return struct_of(kind, list(items)) if isinstance(kind, StructType) else items[0]


def _function(node: Node, argument: Type | None, result: Type | None = None) -> _Operation:
    local, check = node.function, checker(result or node.type.member)
    if local is None:
        raise StepError(f"{node.op} has no function")
    apply = local.on(argument)
    if argument is None:
        return lambda: check(apply())
    return lambda given: check(apply(given))


def _packing(aggregation: Aggregation) -> _Operation:
    """A function from an aggregation's value, and weight, to its blocks."""
    parts, kind = aggregation.parts, aggregation.node.inputs[0].type.member
    most = aggregation.weight_bound
    if most is not None:
        ((name, part),) = parts

        def weighted(value: Any, weight: Any) -> dict[str, Vector]:
            share = min(max(float(finite(np.asarray(weight, np.float64))) / most, 0.0), 1.0)
            vector = share * clipped(flatten(value, kind), part.l2)
            return {name: vector, f"{name} weight": np.array([share * part.l2])}

        return weighted
    if len(parts) == 1:
        name = parts[0][0]
        if isinstance(unbounded(kind), TensorType):
            return lambda value: {name: finite(flat(value))}
        return lambda value: {name: flatten(value, kind)}
    ends = np.cumsum([size(part) for _, part in parts])[:-1]
    names = [name for name, _ in parts]
    return lambda value: dict(zip(names, np.split(flatten(value, kind), ends), strict=True))


def released(
    aggregation: Aggregation, sums: Mapping[str, Vector], *, divisor: float, least: Mapping[str, float]
) -> Any:
    """An aggregation's value at the server.

    Args:
        aggregation: Which.
        sums: The noised sums of its blocks.
        divisor: The public expected number of contributors.
        least: By block, what a noised sum of weights is at least taken to be.
    """
    vector = np.concatenate([sums[name] for name, _ in aggregation.parts])
    if aggregation.weight_bound is not None:
        ((name, part),) = aggregation.parts
        weights = float(sums[f"{name} weight"][0])
        vector = vector / (max(weights, least[f"{name} weight"]) / part.l2)
    elif aggregation.node.op == "mean":
        vector = vector / divisor
    return unflatten(vector, aggregation.node.type.member)
