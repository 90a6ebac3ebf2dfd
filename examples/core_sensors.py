"""The sensors of TensorFlow Federated's tutorial, where the privacy of a program is part of its type.

Ten thousand thermometers: the average temperature, and the share of them above a threshold that the server sends out.
Both in one program, so that both are one draw and one event. What it costs is printed before anything runs; then it
runs, and a version of it that would leak is shown not to type-check.
"""

import numpy as np

from fedavg import SecureAggregation
from fedavg.core import (
    Context,
    PrivacyTypeError,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_map,
    federated_mean,
    local_computation,
    within,
)


@local_computation(np.float32, np.float32, returns=within(np.float32, l2=1.0))
def exceeds(reading, threshold):
    return np.float32(reading > threshold)


@federated_computation(at_clients(np.float32), at_server(np.float32))
def climate(readings, threshold):
    over = federated_map(exceeds, (readings, federated_broadcast(threshold)))
    return {
        "average": federated_mean(federated_clip(readings, l2=100.0)),
        "share_over": federated_mean(over),
    }


def main(sensors=10_000, epsilon=1.0):
    readings = np.random.default_rng(0).normal(69.5, 2.0, sensors).astype(np.float32)
    print(climate)
    context = Context(
        population=sensors,
        delta=1e-6,
        readers_epsilon=epsilon,
        secure=SecureAggregation.ideal(),  # leave it out for real masks
    )
    report = climate.privacy(context)
    print(report)
    errors = [event.stddev[0] / sensors for event in report.events]
    with context:
        found = climate(list(readings), 70.0)
    print(f"average {found['average']:.2f} +- {errors[0]:.2f}, truly {readings.mean():.2f}")
    print(f"share over 70: {found['share_over']:.4f} +- {errors[1]:.4f}, truly {(readings > 70).mean():.4f}")
    try:

        @federated_computation(at_clients(np.float32))
        def unbounded(readings):
            return federated_mean(readings)
    except PrivacyTypeError as error:
        print(f"rejected: {error}")
    return found, errors, readings


if __name__ == "__main__":
    main()
