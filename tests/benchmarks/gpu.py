"""`make bench-gpu`: what one card does, as one Markdown table, in under nine minutes.

Each part runs by itself (`--only score,train`), what is measured is written at once, and a part for which the time or
a library is missing says so. Reviews come from LORACLE_BENCH_FILE (IMDB's test.parquet), else from our sample.
`--tiny` tries the command out with small shapes on any machine: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests import SAMPLE

_print = partial(print, flush=True)

MINUTES = 9.0
FILE_ROWS = 200_000
PIPELINE_BATCHES = (32, 128, 512)
CHILDREN = (1, 2, 3, 4)
SHORT_CHARACTERS = 120
"""A short review: about 30 tokens."""


@dataclass(frozen=True)
class Shape:
    """A model's size. Random weights are as fast as trained ones."""

    name: str
    hidden: int
    layers: int
    heads: int

    @property
    def parameters(self) -> int:
        """Without the embeddings."""
        return 12 * self.layers * self.hidden**2

    def flops(self, lengths: Sequence[int]) -> float:
        """Of one forward pass over reviews of these lengths, without padding."""
        attention = 4 * self.layers * self.hidden * sum(length**2 for length in lengths)
        return 2.0 * self.parameters * sum(lengths) + attention


SHAPES = (Shape("distilroberta", 768, 6, 12), Shape("MiniLM-L6", 384, 6, 12))
TINY = (Shape("tiny", 32, 2, 2),)


@dataclass
class Run:
    """What is measured with: device, sizes, the time that is left, and the rows so far."""

    device: str
    dtype: str
    shapes: tuple[Shape, ...]
    reviews: int
    file_rows: int
    deadline: float
    out: Path | None
    rows: list[tuple[str, str, str]]

    def say(self, part: str, what: str, figure: str) -> None:
        """Adds a row and writes all that there are."""
        _print(f"{part}: {what}: {figure}")
        self.rows.append((part, what, figure))
        if self.out is not None:
            self.out.write_text(self.table(), encoding="utf-8")

    def table(self) -> str:
        """Everything so far."""
        lines = [f"# {_title(self.device)}", "", "| part | what | figure |", "|---|---|---|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows), ""])

    def texts(self, kind: str) -> list[str]:
        """As many reviews as are scored; the short ones are the beginnings of the long ones."""
        from worker.files import ReadOptions, open_reviews
        from worker.reviews import Review

        path = Path(os.environ.get("LORACLE_BENCH_FILE", SAMPLE))
        found = (one.text for one in open_reviews(path, ReadOptions()).read() if isinstance(one, Review))
        some = list(islice(found, self.reviews))
        cut = SHORT_CHARACTERS if kind == "short" else None
        return [text[:cut] for text in islice(cycle(some), self.reviews)]


def _title(device: str) -> str:
    import torch
    import transformers

    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else "no card: a try-out"
    versions = (
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, transformers {transformers.__version__}"
    )
    return f"{name}; {versions}; {time.strftime('%Y-%m-%d')}"


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _seconds(run: Run, work: Callable[[], object], *, rounds: int = 3) -> float:
    """The fastest of some rounds, after one that doesn't count."""
    work()
    found = []
    for _ in range(rounds):
        _wait(run.device)
        started = time.perf_counter()
        work()
        _wait(run.device)
        found.append(time.perf_counter() - started)
    return min(found)


def _matrix_rate(run: Run) -> float:
    """FLOP/s of large products in the number format: what the card can do at most."""
    import torch

    size = 8192 if run.device.startswith("cuda") else 512
    left, right = (
        torch.randn(size, size, device=run.device, dtype=getattr(torch, run.dtype)) for _ in range(2)
    )
    return 2.0 * size**3 / _seconds(run, lambda: [left @ right for _ in range(8)]) * 8


def _adapter(shape: Shape, folder: Path) -> Path:
    """An adapter of this shape on random weights, with the bundled tokenizer; made once."""
    from transformers import RobertaConfig, RobertaModel

    from worker.model.classifier import Classifier
    from worker.model.encoding import Encoding
    from worker.model.lora import lora_config
    from worker.model.manifest import BUNDLED
    from worker.model.pretrained import load_tokenizer

    directory = folder / shape.name
    if not directory.exists():
        base = folder / f"{shape.name}-base"
        config = RobertaConfig(
            vocab_size=50265,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=4 * shape.hidden,
            max_position_embeddings=514,
            type_vocab_size=1,
        )
        RobertaModel(config, add_pooling_layer=False).save_pretrained(base)
        load_tokenizer(BUNDLED).save_pretrained(base)
        lora = lora_config(rank=8, alpha=16, dropout=0.0, targets="all-linear")
        made = Classifier.create(str(base), ("negative", "positive"), Encoding(), lora)
        made.save(directory, name=shape.name, training={}, metrics={})
    return directory


def _score(run: Run, folder: Path) -> None:
    """The scorer packed and padded beside two peers, in tokens and as a share of the card's rate."""
    import torch

    rate = _matrix_rate(run)
    run.say("score", f"large {run.dtype} products", f"{rate / 1e12:.1f} TFLOP/s")
    for shape in run.shapes:
        directory = _adapter(shape, folder)
        for kind in ("IMDB", "short"):
            texts = run.texts(kind)
            lengths, ways = _ways(run, directory, texts)
            for way, (count, work) in ways.items():
                if time.monotonic() > run.deadline:
                    run.say("score", f"{shape.name}, {kind}, {way}", "not measured: time over")
                    continue
                if run.device.startswith("cuda"):
                    torch.cuda.reset_peak_memory_stats()
                seconds = _seconds(run, work, rounds=2)
                memory = torch.cuda.max_memory_allocated() / 2**30 if run.device.startswith("cuda") else 0.0
                run.say(
                    "score",
                    f"{shape.name}, {kind}, {way}",
                    f"{count / seconds:,.0f} reviews/s, {sum(lengths[:count]) / seconds:,.0f} tokens/s, "
                    f"{shape.flops(lengths[:count]) / seconds / rate:.1%} of the rate, {memory:.1f} GiB",
                )


def _ways(
    run: Run, directory: Path, texts: list[str]
) -> tuple[list[int], dict[str, tuple[int, Callable[[], object]]]]:
    """The lengths of the texts in tokens, and what scores the first so many of them in each way."""
    from worker.reviews import Review
    from worker.scorers.adapter import AdapterScorer, load_adapter_scorer

    reviews = [Review(row, text) for row, text in enumerate(texts, start=1)]
    ours = load_adapter_scorer(directory, device=run.device)
    other = load_adapter_scorer(directory, device=run.device)._classifier
    if other.packed is not None:
        other.packed.unpack()
        other.packed = None
    padded = AdapterScorer(other)
    ids = other.encode(texts)
    ways: dict[str, tuple[int, Callable[[], object]]] = {}
    ways["ours, padded"] = len(texts), lambda: padded.score(reviews)
    ways["ours, padded, already encoded"] = len(texts), _forward_only(padded, ids)
    if run.device == "cpu":
        ours._classifier.use_packed()
    if ours._classifier.packed is not None:
        ways["ours, packed"] = len(texts), lambda: ours.score(reviews)
        ways["ours, packed, already encoded"] = len(texts), _forward_only(ours, ids)
    # It is slow, and the time on a card is dear.
    few = texts[: len(texts) // 4]
    for size in PIPELINE_BATCHES:
        ways[f"transformers pipeline, fp16, batch {size}"] = len(few), _pipeline(run, directory, few, size)
    ways["sorted fp16 as sentence-transformers does"] = len(texts), _sorted_fp16(run, directory, texts)
    return [len(row) for row in ids], ways


def _forward_only(scorer: Any, ids: Sequence[Sequence[int]]) -> Callable[[], object]:
    """The model alone, with the scorer's micro-batches, which are planned before."""
    import torch

    plan = [[ids[row] for row in rows] for rows in scorer._plan(dict(enumerate(ids)), range(len(ids)))]

    def work() -> None:
        with torch.inference_mode():
            torch.cat([scorer._classifier.logits(rows) for rows in plan]).cpu()

    return work


def _merged_fp16(run: Run, directory: Path) -> tuple[Any, Any]:
    """The same model and tokenizer as other libraries hold them: merged, in fp16 on a card."""
    import torch

    from worker.model.classifier import Classifier

    dtype = torch.float16 if run.device.startswith("cuda") else torch.float32
    loaded = Classifier.load(directory, device=torch.device("cpu"), dtype=torch.float32)
    for module in loaded.model.modules():
        module._forward_pre_hooks.clear()
    return loaded.model.to(device=run.device, dtype=dtype), loaded.tokenizer


def _pipeline(run: Run, directory: Path, texts: Sequence[str], size: int) -> Callable[[], object]:
    from transformers import pipeline

    model, tokenizer = _merged_fp16(run, directory)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device=run.device)
    return lambda: classify(list(texts), batch_size=size, truncation=True, max_length=256)


def _sorted_fp16(run: Run, directory: Path, texts: Sequence[str]) -> Callable[[], object]:
    """Sorted by length, padded in batches of 256, with FlashAttention where it is installed."""
    import torch

    model, tokenizer = _merged_fp16(run, directory)
    if importlib.util.find_spec("flash_attn") is not None and run.device.startswith("cuda"):
        model.set_attn_implementation("flash_attention_2")
    ordered = sorted(texts, key=len, reverse=True)

    def work() -> None:
        with torch.inference_mode():
            for start in range(0, len(ordered), 256):
                batch = tokenizer(
                    ordered[start : start + 256],
                    padding=True,
                    truncation=True,
                    max_length=256,
                    return_tensors="pt",
                )
                batch.pop("token_type_ids", None)
                model(**batch.to(run.device)).logits.float().cpu()

    return work


def _child(directory: str, device: str, threads: int, texts: list[str], ready: Any, begin: Any) -> None:
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    from worker.reviews import Review
    from worker.scorers.adapter import load_adapter_scorer

    scorer = load_adapter_scorer(Path(directory), device=device)
    reviews = [Review(row, text) for row, text in enumerate(texts, start=1)]
    scorer.score(reviews[:256])
    ready.put(True)
    begin.wait()
    scorer.score(reviews)
    ready.put(True)


def _children(run: Run, folder: Path) -> None:
    """Several processes on one card, from texts to scores."""
    context = multiprocessing.get_context("spawn")
    shape = run.shapes[0]
    directory = str(_adapter(shape, folder))
    texts = run.texts("IMDB")
    cores = len(os.sched_getaffinity(0))
    for children in CHILDREN:
        if time.monotonic() > run.deadline:
            run.say("children", f"{shape.name}, {children}", "not measured: time over")
            continue
        ready, begin = context.Queue(), context.Event()
        arguments = (directory, run.device, max(1, cores // children), texts, ready, begin)
        processes = [context.Process(target=_child, args=arguments) for _ in range(children)]
        for one in processes:
            one.start()
        for _ in processes:
            ready.get(timeout=300)
        started = time.perf_counter()
        begin.set()
        for _ in processes:
            ready.get(timeout=300)
        seconds = time.perf_counter() - started
        for one in processes:
            one.join()
        run.say(
            "children", f"{shape.name}, IMDB, {children}", f"{children * len(texts) / seconds:,.0f} reviews/s"
        )


def _sql(run: Run, folder: Path) -> None:
    """A file of many reviews to labels in SQL, with the private queue: `loracle run`."""
    if importlib.util.find_spec("celery") is None:
        run.say("sql", "file to labels", "not measured: the service libraries aren't installed here")
        return
    path = folder / "reviews.jsonl"
    texts = run.texts("IMDB")
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(islice(cycle(texts), run.file_rows)):
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    variables = {**os.environ, "LORACLE_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "worker", "run", str(path), "--json"]
    started = time.perf_counter()
    done = subprocess.run(
        command,
        env=variables,
        capture_output=True,
        text=True,
        timeout=max(60.0, run.deadline - time.monotonic()),
    )
    if done.returncode:
        run.say(
            "sql", "file to labels", f"failed: {done.stderr.strip().splitlines()[-1] if done.stderr else '?'}"
        )
        return
    seconds = time.perf_counter() - started
    run.say(
        "sql",
        f"{run.file_rows:,} reviews, file to labels in SQLite",
        f"{run.file_rows / seconds:,.0f} reviews/s",
    )


def _train(run: Run, folder: Path) -> None:
    """The trainer for one epoch over the reviews, and what three epochs of IMDB would take."""
    from trainer.config import TrainConfig
    from trainer.train import train

    texts = run.texts("IMDB")
    gold = ["negative" if row % 2 else "positive" for row in range(len(texts))]
    for shape in run.shapes:
        _adapter(shape, folder)
        config = TrainConfig(
            out=folder / f"{shape.name}-trained",
            name="bench",
            base=str(folder / f"{shape.name}-base"),
            epochs=1,
            token_budget=65_536 if run.device.startswith("cuda") else 4096,
            device=run.device,
            validation=0.05,
        )
        rates = [0.0]
        started = time.perf_counter()
        train(config, texts, gold, ("negative", "positive"), report=partial(_note_rate, rates))
        seconds = time.perf_counter() - started
        minutes = 3 * 25_000 / len(texts) * seconds / 60
        run.say(
            "train",
            f"{shape.name}, LoRA, {len(texts):,} reviews, one epoch",
            f"{max(rates):,.0f} tokens/s, {seconds:.1f} s; by that, three epochs of IMDB take {minutes:.1f} min",
        )


def _note_rate(rates: list[float], report: Any) -> None:
    # Reports of an epoch have none.
    rates.append(getattr(report, "tokens_per_s", 0.0))


def _tests(run: Run, folder: Path) -> None:
    """tests/gpu."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"],
        capture_output=True,
        text=True,
        timeout=max(60.0, run.deadline - time.monotonic()),
    )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was said"]
    run.say("tests", "tests/gpu", lines[-1])


PARTS: dict[str, Callable[[Run, Path], None]] = {
    "tests": _tests,
    "score": _score,
    "children": _children,
    "train": _train,
    "sql": _sql,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that were asked for, and says what went wrong with one without losing the others."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, help="where the table goes, rewritten after every figure")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="nothing is begun after so many")
    parser.add_argument("--rows", type=int, default=FILE_ROWS, help="reviews of the file in part sql")
    parser.add_argument("--tiny", action="store_true", help="small shapes on the processor: a try-out")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    import torch

    if not options.tiny and not torch.cuda.is_available():
        _print("torch sees no CUDA device here; --tiny tries the command out.", file=sys.stderr)
        return 2
    run = Run(
        device="cpu" if options.tiny else "cuda",
        dtype="float32" if options.tiny else "bfloat16",
        shapes=TINY if options.tiny else SHAPES,
        reviews=64 if options.tiny else 8192,
        file_rows=200 if options.tiny else options.rows,
        deadline=time.monotonic() + 60 * options.minutes,
        out=options.out,
        rows=[],
    )
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            if time.monotonic() > run.deadline:
                run.say(name, "the whole part", "not measured: time over")
                continue
            try:
                PARTS[name](run, Path(folder))
            except Exception as error:
                # A part may fail of anything a card or a library raises: the others are measured all the same.
                failed += 1
                run.say(name, "the whole part", f"failed with {type(error).__name__}: {str(error)[:200]}")
    _print(run.table())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
