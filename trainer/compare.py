"""The article's question, measured: what does LoRA give up, and what does it save, against everything else?

Every contender learns from the same reviews, validates and is tested on the same reviews, in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from trainer.comparison import Comparison
from trainer.contenders.row import Contender, Row
from trainer.contenders.task import Reviews, Settings, Task, indices, pick
from trainer.data import LabelledReviews, data_sha256, split
from trainer.leakage import leaking_rows
from worker.errors import TrainingInvalid

HELD_OUT = 0.2
"""Share of the reviews that is tested on where no test file is given."""
ROW = "row.json"
WORK = ".work"
ADAPTERS = "adapters"
LIBRARIES = ("torch", "transformers", "peft", "scikit-learn", "numpy")
STOP_S = 10.0
"""How long a contender's process may take to end after it was told to."""


def divide(
    reviews: LabelledReviews,
    test: LabelledReviews | None,
    *,
    limit: int | None,
    test_limit: int | None,
    seed: int,
) -> tuple[Reviews, list[str]]:
    """Training and test reviews, each a random sample with the labels' shares; and sentences on what was done.

    Without `test` a fifth of the reviews is held out for it. Training reviews that are in the test part too, word
    for word or nearly, are left out.

    Raises:
        TrainingInvalid: too few reviews are left.
    """
    told = []
    if test is None:
        rest, held_out = split(indices(reviews), HELD_OUT, seed)
        reviews, test = _take(reviews, rest), _take(reviews, held_out)
        told.append(
            f"no --test file: {HELD_OUT:.0%} of the reviews, drawn with seed {seed}, are held out to test on"
        )
    reviews, test = _sample(reviews, limit, seed), _sample(test, test_limit, seed)
    leaking = set(leaking_rows(reviews.texts, test.texts))
    if leaking:
        told.append(
            f"{len(leaking):,} training reviews that are in the test part too, or nearly, are left out"
        )
        reviews = _take(reviews, [row for row in range(len(reviews.texts)) if row not in leaking])
    for part, found in (("train", reviews), ("test", test)):
        if len(set(found.gold)) < 2:
            raise TrainingInvalid(
                f"the {len(found.texts):,} reviews to {part} on have fewer than two labels: there is nothing to "
                "tell apart."
            )
    return Reviews(train=reviews, test=test), told


def identity(reviews: Reviews, settings: Settings) -> dict[str, Any]:
    """What must be equal for two rows to be comparable."""
    libraries = versions()
    # The options first: of two differences the first is told, and an option says more than a hash.
    return {
        "labels": list(reviews.labels),
        **settings.to_dict(),
        "data_sha256": data_sha256(reviews.train.texts, reviews.train.gold),
        "test_sha256": data_sha256(reviews.test.texts, reviews.test.gold),
        "versions": {name: libraries[name] for name in ("torch", "transformers", "peft")},
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that a figure may depend on; None where one isn't installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = None
    return found


def compare(
    contenders: Sequence[Contender],
    reviews: Reviews,
    settings: Settings,
    comparison: Comparison,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Measures the contenders that `comparison` lacks, one after another, and writes each row at once.

    One that fails is a row too, and the others go on. Adapters are left in the comparison's directory.
    """
    work = comparison.directory / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        reviews.write(work / "reviews.parquet")
        for contender in contenders:
            before = comparison.measured(contender.key)
            if before is not None:
                tell(f"{contender.title}: measured before")
                continue
            tell(f"{contender.title}: training")
            task = Task(contender, settings, work / "reviews.parquet", work / contender.key)
            task.work.mkdir()
            row = measure_apart(task)
            comparison.add(row)
            tell(_outcome(row))
            if row.state == "measured" and (task.work / "adapter").is_dir():
                kept = comparison.directory / ADAPTERS / contender.key
                shutil.rmtree(kept, ignore_errors=True)
                kept.parent.mkdir(exist_ok=True)
                (task.work / "adapter").rename(kept)
            shutil.rmtree(task.work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure_apart(task: Task) -> Row:
    """The row of one contender, from a fresh process, which ends with this one whatever happens."""
    command = [sys.executable, "-m", "trainer.contenders", task.to_json(), str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    if code == 130:
        # Ctrl-C reaches every process of the terminal; the contender's may hear it first.
        raise KeyboardInterrupt
    try:
        return Row.from_dict(json.loads((task.work / ROW).read_text(encoding="utf-8")))
    except OSError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = (
            "; if that was the kernel for want of memory, lower --max-length or --limit" if code == -9 else ""
        )
        reason = f"its process {how}{hint}"
        return Row(task.contender.key, task.contender.title, "failed", reason)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _outcome(row: Row) -> str:
    if row.state != "measured":
        return f"{row.title}: {row.state}: {row.reason}"
    return f"{row.title}: accuracy {row.accuracy:.2%} after {row.train_seconds:.0f} s of training"


def _sample(reviews: LabelledReviews, count: int | None, seed: int) -> LabelledReviews:
    # About that many: each label's share is rounded by itself.
    if count is None or count >= len(reviews.texts):
        return reviews
    _, chosen = split(indices(reviews), count / len(reviews.texts), seed)
    return _take(reviews, chosen)


def _take(reviews: LabelledReviews, rows: Sequence[int]) -> LabelledReviews:
    return LabelledReviews(pick(reviews.texts, rows), pick(reviews.gold, rows), reviews.labels, [])
