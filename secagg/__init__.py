"""Secure aggregation: a server learns the sum of integer vectors modulo 2^b and nothing else.

Bonawitz et al. 2017 on the complete graph, Bell et al. 2020 on a sparse one. `simulate` runs a whole round
in memory, `run_round` does so for chosen parameters, `Client` and `Server` are the machines for a network.
"""

from secagg.client import Client
from secagg.conditional import RevealRule
from secagg.entropy import Entropy, SeededEntropy, system_entropy
from secagg.errors import (
    AuthenticationFailed,
    DuplicateMessage,
    InconsistentSets,
    LocalProtocolError,
    MalformedMessage,
    ParameterError,
    RecordError,
    RefusedParameters,
    RemoteProtocolError,
    SecAggError,
    TooFewClients,
    UnexpectedMessage,
)
from secagg.graph import GraphParameters, graph_parameters
from secagg.graph_parameters import complete_threshold, unmet_conditions
from secagg.identities import Identity, IdentityRoster
from secagg.parameters import RoundParameters, Vector
from secagg.partial_sum import PartialSum
from secagg.records import Records
from secagg.recovery import Fault
from secagg.server import Server, Sum
from secagg.simulation import RoundResult, Simulation, run_round, simulate

__all__ = [
    "AuthenticationFailed",
    "Client",
    "DuplicateMessage",
    "Entropy",
    "Fault",
    "GraphParameters",
    "Identity",
    "IdentityRoster",
    "InconsistentSets",
    "LocalProtocolError",
    "MalformedMessage",
    "ParameterError",
    "PartialSum",
    "RecordError",
    "Records",
    "RefusedParameters",
    "RemoteProtocolError",
    "RevealRule",
    "RoundParameters",
    "RoundResult",
    "SecAggError",
    "SeededEntropy",
    "Server",
    "Simulation",
    "Sum",
    "TooFewClients",
    "UnexpectedMessage",
    "Vector",
    "complete_threshold",
    "graph_parameters",
    "run_round",
    "simulate",
    "system_entropy",
    "unmet_conditions",
]
