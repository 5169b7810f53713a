"""The contenders that learn by gradient: an encoder with LoRA, the same fine-tuned as a whole, and an LSTM.

The LSTM stands for what came before pretrained models: the source article's earlier part trained an embedding with
an LSTM on the same IMDB reviews and reached 0.88. It reads the same token ids as the encoders, in order, but knows no
word before its first review. Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005 for both directions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from trainer.config import TrainConfig
from trainer.contenders.task import Reviews, Row, Task, Training, indices, pick
from trainer.data import Examples
from trainer.evaluation import evaluate_file
from trainer.loop import Trainee, Validation, fit, validate
from trainer.record import Report
from trainer.train import train
from worker.model.bases import find_base
from worker.model.classifier import Classifier
from worker.model.devices import choose_device, choose_dtype, device_title, dtype_name
from worker.model.encoding import Encoding, encode
from worker.model.lora import lora_config
from worker.model.pretrained import load_tokenizer


class Encoder(Trainee, Protocol):
    """What can be trained and turns texts into token ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in input order."""


def fit_and_test(
    task: Task,
    reviews: Reviews,
    make: Callable[[], Encoder],
    config: TrainConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[Report], None],
) -> Row:
    """Makes the model, trains it, puts its best epoch's weights back, and tests it.

    Raises:
        TrainingInvalid: the loss is no number any more, or the memory doesn't suffice.
    """
    learn, validation = reviews.parts(task.settings)
    gold = indices(reviews.train)
    weights = task.work / "model.safetensors"
    best: list[Validation] = []
    torch.manual_seed(task.settings.seed)
    with Training(str(device)) as training:
        trainee = make()
        ids = trainee.encode(reviews.train.texts)

        def keep(found: Validation) -> None:
            best[:] = [found]
            save_model(trainee.model, str(weights))

        position = fit(
            trainee,
            Examples(pick(ids, learn), pick(gold, learn)),
            Examples(pick(ids, validation), pick(gold, validation)),
            config,
            dtype=dtype,
            keep=keep,
            report=report,
        )
        load_model(trainee.model, weights, device=str(device))
    seconds, right = test(trainee, reviews, token_budget=2 * config.token_budget, dtype=dtype)
    trainable, parameters = _count(trainee.model)
    return Row(
        key=task.contender.key,
        title=task.contender.title,
        trainable_parameters=trainable,
        parameters=parameters,
        memory=training.memory,
        train_seconds=training.seconds,
        test_seconds=seconds,
        size=weights.stat().st_size,
        size_of="all weights",
        n=len(reviews.test.texts),
        right=right,
        details={
            "device": device_title(device),
            "dtype": dtype_name(dtype),
            "validation_accuracy": best[0].accuracy,
            "epoch": best[0].epoch,
            "epochs": position.epoch,
            "learning_rate": config.learning_rate,
        },
    )


def test(trainee: Encoder, reviews: Reviews, *, token_budget: int, dtype: torch.dtype) -> tuple[float, int]:
    """Seconds that encoding and labelling the test reviews take, and how many of them got gold's label."""
    gold = indices(reviews.test)
    started = time.perf_counter()
    examples = Examples(trainee.encode(reviews.test.texts), gold)
    found: Any = validate(trainee, examples, token_budget=token_budget, dtype=dtype).logits.argmax(axis=1)
    return time.perf_counter() - started, int((found == np.array(gold)).sum())


FULL_LEARNING_RATE = 5e-5
"""The largest of those that Devlin et al. 2019 (BERT, appendix A.3) recommend for fine-tuning: 2e-5 to 5e-5. The
bases here are small, and small ones bear more."""


def measure_lora(task: Task, reviews: Reviews, report: Callable[[Report], None]) -> Row:
    """Trains an adapter as `loracle train` does and tests it through the worker's scorer: what would run is measured.

    The adapter stays in the directory `adapter` of the task's.
    """
    rank = task.contender.rank
    assert rank is not None
    # alpha / rank scales the update: kept at 2, the ranks differ in nothing but their rank.
    config = _config(task, task.work / "adapter", rank=rank, alpha=2 * rank, targets=task.settings.targets)
    device = choose_device(config.device)
    # `train` measures memory too, from before it makes the model, so that this peak begins there as well.
    with Training(str(device)) as training:
        manifest = train(config, reviews.train.texts, reviews.train.gold, reviews.labels, report=report)
    evaluation, scores = evaluate_file(config.out, reviews.test, device=config.device, dtype=config.dtype)
    given = [None if score is None else score.label for score in scores]
    # From the same model made once more: the worker has merged the adapter away.
    lora = lora_config(rank=config.rank, alpha=config.alpha, dropout=0.0, targets=config.targets)
    trainable, parameters = _count(
        Classifier.create(config.base, reviews.labels, config.encoding, lora).model
    )
    return Row(
        key=task.contender.key,
        title=task.contender.title,
        trainable_parameters=trainable,
        parameters=parameters,
        memory=training.memory,
        train_seconds=training.seconds,
        test_seconds=(evaluation.seconds_per_review or 0.0) * evaluation.n,
        size=directory_size(config.out),
        size_of="adapter directory",
        n=evaluation.n,
        right=sum(label == wanted for label, wanted in zip(given, reviews.test.gold, strict=True)),
        details={
            "device": device_title(device),
            "dtype": dtype_name(choose_dtype(device, config.dtype)),
            "validation_accuracy": manifest.metrics["validation_accuracy"],
            "epoch": manifest.metrics["epoch"],
            "learning_rate": config.learning_rate,
            "manifest_sha256": manifest.sha256,
        },
    )


def measure_full(task: Task, reviews: Reviews, report: Callable[[Report], None]) -> Row:
    """Trains all of the base's parameters; the whole model is what must be stored."""
    config = _config(task, task.work, learning_rate=FULL_LEARNING_RATE)
    device = choose_device(config.device)

    def make() -> Classifier:
        classifier = Classifier.create(config.base, reviews.labels, config.encoding, None)
        classifier.model.requires_grad_(True)
        classifier.to(device)
        return classifier

    return fit_and_test(
        task,
        reviews,
        make,
        config,
        device=device,
        dtype=choose_dtype(device, config.dtype),
        report=report,
    )


def directory_size(directory: Path) -> int:
    """Bytes of all files in a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _config(task: Task, out: Path, **changes: object) -> TrainConfig:
    settings = task.settings
    options = {
        "base": settings.base,
        "encoding": settings.encoding,
        "epochs": settings.epochs,
        "token_budget": settings.token_budget,
        "validation": settings.validation,
        "seed": settings.seed,
        "device": settings.device,
        "dtype": settings.dtype,
        **changes,
    }
    return TrainConfig(out=out, name=task.contender.key, **options)  # type: ignore[arg-type]


def _count(model: nn.Module) -> tuple[int, int]:
    # Trainable and all parameters.
    parameters = list(model.parameters())
    return sum(one.numel() for one in parameters if one.requires_grad), sum(one.numel() for one in parameters)


LSTM_LEARNING_RATE = 2e-3
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


def measure_lstm(task: Task, reviews: Reviews, report: Callable[[Report], None]) -> Row:
    """Trains in fp32: packed sequences gain little from less, and on a CPU autocast doesn't know them."""
    settings = task.settings
    device = choose_device(settings.device)
    config = TrainConfig(
        out=task.work,
        name=task.contender.key,
        base=settings.base,
        encoding=settings.encoding,
        epochs=settings.lstm_epochs,
        learning_rate=LSTM_LEARNING_RATE,
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
