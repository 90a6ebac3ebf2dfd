"""Plain federated averaging around a PyTorch loop: what `wrap_torch` does, without Veilsum and without privacy."""

import random

import torch

from examples.clients import images


def fit(module, data):
    x, y = map(torch.from_numpy, data)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()


def main(dataset="mnist", clients=3000, cohort=300, rounds=50):
    data = images(dataset, clients=clients)
    module = torch.nn.Linear(data.features, 10)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    for _ in range(rounds):
        moved = {name: torch.zeros_like(value) for name, value in weights.items()}
        for client in random.sample(data.clients, cohort):
            module.load_state_dict(weights)
            fit(module, client)
            for name, value in module.state_dict().items():
                moved[name] += (value - weights[name]) / cohort
        velocity = {name: 0.9 * velocity[name] + moved[name] for name in weights}
        weights = {name: weights[name] + velocity[name] for name in weights}
    module.load_state_dict(weights)
    x, y = map(torch.from_numpy, data.test)
    print(f"accuracy {(module(x).argmax(dim=1) == y).float().mean():.3f}")


if __name__ == "__main__":
    main()
