"""The next-character model of the text experiment, and the public text its first weights come from.

    python -m examples.text_model      # trains the saved first weights anew: some minutes

The weights in `text_start.npz` were trained on the State of the Union addresses (public domain), nobody's secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedavg.datasets import load_users

__all__ = ["SYMBOLS", "Characters", "encoded", "sampled", "start", "windows"]

SYMBOLS = "\n !\"&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
OTHER = len(SYMBOLS)
START = Path(__file__).with_name("text_start.npz")
_PLACE = np.full(256, OTHER, np.int64)
_PLACE[np.frombuffer(SYMBOLS.encode(), np.uint8)] = np.arange(OTHER)


class Characters(torch.nn.Module):
    """A GRU over characters: scores of the next one at every place, shape (batch, symbols, length)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(OTHER + 1, 16)
        self.gru = torch.nn.GRU(16, width, batch_first=True)
        self.output = torch.nn.Linear(width, OTHER + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take places, shape (batch, length)."""
        scores: torch.Tensor = self.output(self.gru(self.embedding(x))[0])
        return scores.transpose(1, 2)


def encoded(text: str) -> NDArray[np.int64]:
    """Each character's place in `SYMBOLS`; everything else is one symbol, and "?" what Latin-1 has not."""
    return _PLACE[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]


def windows(texts: Iterable[str], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Characters and the ones that follow them, each of shape (windows, length); what is left at the end is dropped."""
    places = encoded("\n".join(texts))
    count = (len(places) - 1) // length
    return places[: count * length].reshape(count, length), places[1 : count * length + 1].reshape(
        count, length
    )


def start() -> Characters:
    """The model with its saved first weights."""
    module = Characters()
    with np.load(START) as saved:
        module.load_state_dict({name: torch.from_numpy(saved[name]) for name in saved.files})
    return module


def sampled(module: Characters, prompt: str, *, length: int, seed: int, temperature: float = 0.5) -> str:
    """Let the model go on from a prompt."""
    generator = torch.Generator().manual_seed(seed)
    symbols, memory, text = torch.from_numpy(encoded(prompt)), None, prompt
    with torch.inference_mode():
        for _ in range(length):
            hidden, memory = module.gru(module.embedding(symbols)[None], memory)
            chances = torch.softmax(module.output(hidden[0, -1]) / temperature, dim=0)
            symbols = torch.multinomial(chances, 1, generator=generator)
            text += (SYMBOLS + "#")[int(symbols)]
    return text


def main(epochs: int = 3, batch: int = 64) -> None:
    """Train the first weights on the State of the Union and save them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    speeches = load_users("sotu").users.values()
    texts = [" ".join(text.split()) for president in speeches for text in president]
    x, y = map(torch.from_numpy, windows(texts, 64))
    module = Characters()
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.Adam(module.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(len(x), (batch,))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step} of {steps}: {loss.item():.3f}", flush=True)
    np.savez(START, **{name: value.numpy() for name, value in module.state_dict().items()})


if __name__ == "__main__":
    main()
