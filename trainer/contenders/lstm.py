"""A bidirectional LSTM, trained from nothing.

It stands for what came before pretrained models: the source article's earlier part trained an embedding with an LSTM
on the same IMDB reviews and reached 0.88. It reads the same token ids as the encoders, in order, but knows no word
before its first review. Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005 for both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from trainer.config import TrainConfig
from trainer.contenders.fitting import fit_and_test
from trainer.contenders.row import Row
from trainer.contenders.task import Reviews, Task
from trainer.reports import Report
from worker.model.bases import find_base
from worker.model.devices import choose_device
from worker.model.encoding import Encoding, encode
from worker.model.pretrained import load_tokenizer

LEARNING_RATE = 2e-3
EMBEDDING = 128
HIDDEN = 128
"""Numbers per word and per direction: with a vocabulary of 30,000, four million parameters."""
DROPOUT = 0.3


class LSTMModel(nn.Module):
    """Embedding, LSTM in both directions, the largest of each number over all words, a linear head."""

    def __init__(self, vocabulary: int, labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(2 * HIDDEN, labels)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits (B, labels) of ids (B, T) of which the first `lengths` (B, on the CPU) count."""
        embedded = self.dropout(self.embedding(ids))
        # Packed, so that the backward direction begins at the last word rather than at the padding.
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, padding_value=float("-inf"), total_length=ids.shape[1]
        )
        logits: torch.Tensor = self.head(self.dropout(states.amax(dim=1)))
        return logits


class LSTMClassifier:
    """The model with a base's tokenizer, as the loop trains it."""

    def __init__(self, base: str, labels: Sequence[str], encoding: Encoding, device: torch.device) -> None:
        self.tokenizer = load_tokenizer(find_base(base))
        self.encoding = encoding
        self.device = device
        self.model = LSTMModel(len(self.tokenizer), len(labels)).to(device)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in input order."""
        return encode(self.tokenizer, texts, self.encoding)

    def logits(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """One forward pass: (B, labels) in fp32, in input order."""
        lengths = torch.tensor([len(ids) for ids in token_ids])
        rows = pad_sequence([torch.tensor(ids) for ids in token_ids], batch_first=True)
        logits: torch.Tensor = self.model(rows.to(self.device), lengths)
        return logits.float()


def measure(task: Task, reviews: Reviews, report: Callable[[Report], None]) -> Row:
    """Trains in fp32: packed sequences gain little from less, and on a CPU autocast doesn't know them."""
    settings = task.settings
    device = choose_device(settings.device)
    config = TrainConfig(
        out=task.work,
        name=task.contender.key,
        base=settings.base,
        encoding=settings.encoding,
        epochs=settings.lstm_epochs,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        token_budget=settings.token_budget,
        seed=settings.seed,
    )
    return fit_and_test(
        task,
        reviews,
        lambda: LSTMClassifier(settings.base, reviews.labels, settings.encoding, device),
        config,
        device=device,
        dtype=torch.float32,
        report=report,
    )
