"""Training speed and memory, side by side: the article's loop against ours, LoRA against full fine-tuning.

Every variant runs in a process of its own, in turn, `ROUNDS` times; medians are compared. Weights are random (they
change neither speed nor memory), and so are the token ids; their lengths follow IMDB's (`_lengths`).
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROUNDS = 3
REVIEWS = {"MiniLM-L6": 64, "distilroberta": 32}
LENGTH = 256

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "MiniLM-L6": {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
    "distilroberta": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
}
VARIANTS: dict[str, tuple[str, str]] = {
    "article's loop, article's LoRA": ("article", "article"),
    "our loop, article's LoRA, base dropout kept": ("ours with dropout", "article"),
    "our loop, article's LoRA": ("ours", "article"),
    "our loop, default LoRA": ("ours", "default"),
    "our loop, full fine-tuning": ("ours", "full"),
    "article's loop, full fine-tuning": ("article", "full"),
}


def measure() -> Iterator[dict[str, Any]]:
    """One figure per architecture and variant, then the ratios."""
    for architecture in ARCHITECTURES:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
        for _ in range(ROUNDS):
            for name in VARIANTS:
                found[name].append(_in_a_process(architecture, name, REVIEWS[architecture]))
        medians = {
            name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            for name, rounds in found.items()
        }
        for name, figures in medians.items():
            yield {"benchmark": "train", "architecture": architecture, "way": name, **figures}
        article, ours = medians["article's loop, article's LoRA"], medians["our loop, default LoRA"]
        full = medians["article's loop, full fine-tuning"]
        yield {
            "benchmark": "training ratios",
            "architecture": architecture,
            "our_default_to_articles_loop": round(ours["tokens_per_s"] / article["tokens_per_s"], 2),
            "our_loop_on_articles_lora_to_articles_loop": round(
                medians["our loop, article's LoRA"]["tokens_per_s"] / article["tokens_per_s"], 2
            ),
            "articles_lora_memory_of_full_fine_tuning": round(article["memory_mb"] / full["memory_mb"], 3),
            "our_default_memory_of_full_fine_tuning": round(
                ours["memory_mb"] / medians["our loop, full fine-tuning"]["memory_mb"], 3
            ),
        }


def _in_a_process(architecture: str, variant: str, reviews: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.training", architecture, variant, str(reviews)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _variant(architecture: str, variant: str, reviews: int) -> dict[str, float]:
    # Imported in the child alone.
    import torch

    from trainer.data import Examples
    from trainer.memory import MemoryMeter
    from worker.model.devices import choose_device

    loop, method = VARIANTS[variant]
    device = choose_device()
    torch.manual_seed(0)
    lengths = _lengths(reviews)
    rng = random.Random(0)
    examples = Examples(
        [[rng.randrange(1000, 30000) for _ in range(length)] for length in lengths],
        [rng.randrange(2) for _ in lengths],
    )
    meter = MemoryMeter(device.type)
    model = _model(architecture, method, dropout=loop != "ours").to(device)
    run = _article if loop == "article" else _ours
    seconds = run(_Trainee(model, device), examples)
    memory = meter.read()
    return {
        "tokens_per_s": round(sum(lengths) / seconds, 1),
        "reviews_per_s": round(reviews / seconds, 3),
        "memory_mb": round(memory.bytes / 2**20, 1),
    }


@dataclass
class _Trainee:
    model: Any
    device: Any

    def logits(self, token_ids: Sequence[Sequence[int]]) -> Any:
        return self.padded(token_ids, max(map(len, token_ids)))

    def padded(self, token_ids: Sequence[Sequence[int]], length: int) -> Any:
        import torch

        rows = torch.ones(len(token_ids), length, dtype=torch.long)
        mask = torch.zeros_like(rows)
        for row, ids in enumerate(token_ids):
            rows[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        return self.model(input_ids=rows.to(self.device), attention_mask=mask.to(self.device)).logits.float()


def _model(architecture: str, method: str, *, dropout: bool) -> Any:
    from transformers import AutoModelForSequenceClassification, RobertaConfig

    from worker.model.lora import lora_config, new_adapter

    p = 0.1 if dropout else 0.0
    config = RobertaConfig(
        vocab_size=50265 if architecture == "distilroberta" else 30522,
        num_hidden_layers=6,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2,
        hidden_dropout_prob=p,
        attention_probs_dropout_prob=p,
        **ARCHITECTURES[architecture],
    )
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    if method == "full":
        return model
    if method == "article":
        chosen = lora_config(rank=8, alpha=16, dropout=p, targets=("query", "value"))
    else:
        chosen = lora_config(rank=16, alpha=32, dropout=0.0, targets="all-linear")
    return new_adapter(model, chosen)


def _article(trainee: _Trainee, examples: Any) -> float:
    # What the article's script does: 8 reviews a step, all padded to 256, fp32, AdamW, clipping, linear decay.
    import torch
    from torch.nn import functional

    parameters = [parameter for parameter in trainee.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, eps=1e-8)
    steps = [range(start, min(start + 8, len(examples))) for start in range(0, len(examples), 8)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(steps))
    trainee.model.train()

    def run() -> None:
        for rows in steps:
            logits = trainee.padded([examples.ids[row] for row in rows], LENGTH)
            wanted = torch.tensor([examples.labels[row] for row in rows], device=trainee.device)
            functional.cross_entropy(logits, wanted).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)

    return _timed(trainee, run)


def _ours(trainee: _Trainee, examples: Any) -> float:
    # The loop itself; two reviews to validate on, so that the figure is the training's.
    from trainer.config import TrainConfig
    from trainer.data import Examples
    from trainer.loop import fit
    from worker.model.devices import choose_dtype

    config = TrainConfig(out=Path("unused"), name="bench", epochs=1)
    if trainee.device.type == "cuda":
        config = replace(config, token_budget=16_384)
    few = Examples(examples.ids[:2], examples.labels[:2])
    dtype = choose_dtype(trainee.device)

    def run() -> None:
        fit(trainee, examples, few, config, dtype=dtype, keep=lambda _: None)

    return _timed(trainee, run)


def _timed(trainee: _Trainee, run: Callable[[], None]) -> float:
    # On a GPU the first pass compiles and fills caches; on a CPU a second one would only double the time.
    import torch

    if trainee.device.type == "cuda":
        run()
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if trainee.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _lengths(reviews: int) -> list[int]:
    # IMDB's lengths in MiniLM's tokens are about log-normal: median 230, mean 298; cut at 256 the mean is 206.
    rng = random.Random(1)
    return [max(16, min(LENGTH, round(rng.lognormvariate(5.44, 0.62)))) for _ in range(reviews)]


if __name__ == "__main__":
    print(json.dumps(_variant(sys.argv[1], sys.argv[2], int(sys.argv[3]))))  # noqa: T201
