"""A PyTorch training loop over 3,000 clients. The lines marked `# private` are all that Veilsum adds."""

import torch

import dp  # private
import fedavg  # private
from examples.clients import images


def fit(module, data):
    x, y = map(torch.from_numpy, data)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()


def main(dataset="mnist", clients=3000, cohort=300, rounds=50, **settings):
    data = images(dataset, clients=clients)
    module = torch.nn.Linear(data.features, 10)
    step = fedavg.from_torch(module, fit)  # private
    result = fedavg.train(  # private
        step, data.clients, weights=step.weights, rounds=rounds, cohort_size=cohort,  # private
        privacy=dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3),  # private
        server_optimizer=fedavg.sgd(momentum=0.9), **settings,  # private
    )  # private  # fmt: skip
    module.load_state_dict(
        {name: torch.from_numpy(value) for name, value in result.weights.items()}
    )  # private
    x, y = map(torch.from_numpy, data.test)
    print(f"accuracy {(module(x).argmax(dim=1) == y).float().mean():.3f}")
    print(result.statement.readers.claim, result.statement.server.claim, sep="\n")  # private
    return result


if __name__ == "__main__":
    main()
