"""`loracle distill` beside what else one could do without labels; the oracle is the file's gold labels
but for 4 % of noise.

`python -m tests.benchmarks.distilling --file test.parquet --home FOLDER`; it goes on where it was stopped.
`distill` really runs, against a fake of OpenAI's server. Beside it stand the adapter that it trained, the bundled one
without any training, what BigQuery's optimised mode trains (logistic regression on frozen embeddings, here of the
bundled adapter's base with its own 256 tokens, on the answers that distill paid for), all under the same guarantee,
and the oracle for all. The same answers serve all of them. As one audit is one draw, each is replayed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.benchmarks.simulate import DELTA, NOISE, Flags, Scores
from tests.fake_openai import FakeOpenAI, answers
from worker.agreement.columns import NONE, Raters
from worker.agreement.guarantee import cut, terms
from worker.model.bases import find_base
from worker.model.encoding import Encoding, encode
from worker.model.manifest import BUNDLED, Manifest
from worker.store.engine import make_engine
from worker.store.queries import Queries

Codes = NDArray[np.int64]

TARGET = 0.95
LABELS = ("negative", "positive")
REPLAYS = 200
PORT = 40939
"""Of the fake: whoever asks another server asks another oracle, and begins another job."""


def oracle_place(text: str, gold: int) -> int:
    """Gold, and for 4 % of the texts, always the same ones, the other label: places in `LABELS`."""
    digest = hashlib.sha256(f"oracle {text}".encode()).digest()
    return gold ^ (int.from_bytes(digest[:8]) < NOISE * 2**64)


def _end(text: str) -> str:
    # The oracle sees the last 500 characters.
    return " ".join(text.split())[-200:]


def run(home: Path, url: str, *arguments: str) -> None:
    """A command of the product, its progress on stderr."""
    ours = ("LORACLE_", "DATABASE_URL", "REDIS_URL", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    variables = {**kept, "LORACLE_HOME": str(home), "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "any"}
    subprocess.run(
        [sys.executable, "-m", "worker", *arguments], env=variables, stdout=subprocess.DEVNULL, check=True
    )


def embeddings(texts: Sequence[str], cache: Path) -> NDArray[np.float32]:
    """The mean of the last layer's states (N, H), each of length 1, as the base is published to be used."""
    if cache.exists():
        found: NDArray[np.float32] = np.load(cache)
        return found
    import torch
    from torch.nn.functional import normalize
    from transformers import AutoModel, AutoTokenizer

    base = find_base(Manifest.read(BUNDLED).base.id)
    model = AutoModel.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = encode(tokenizer, texts, Encoding(max_length=256, truncation="head", cleaning="markup"))
    rows: list[Any] = [None] * len(ids)
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            batch = tokenizer.pad({"input_ids": [ids[place] for place in places]}, return_tensors="pt")
            states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
            means = normalize((states * mask).sum(1) / mask.sum(1)).numpy()
            for place, mean in zip(places, means, strict=True):
                rows[place] = mean
            if start % 3_200 == 0:
                sys.stderr.write(f"{start:,} of {len(ids):,} embedded\n")
    found = np.stack(rows)
    np.save(cache, found)
    return found


def regression(features: NDArray[np.float32], oracle: Codes, learn: Flags) -> tuple[Codes, Scores]:
    """Its labels and scores (N,), trained on the answers `learn` (N,)."""
    from sklearn.linear_model import LogisticRegressionCV

    model = LogisticRegressionCV(
        Cs=8, cv=5, max_iter=2_000, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
    )
    model.fit(features[learn], oracle[learn])
    chances = model.predict_proba(features)
    return chances.argmax(1).astype(np.int64), chances.max(1)


def under_guarantee(
    given: Codes,
    scores: Scores,
    paid: Flags,
    oracle: Codes,
    gold: Codes,
) -> dict[str, float]:
    """Means over the replays, each with another audit. The labels `paid` for before (N,) are the oracle's."""
    n = len(given)
    rest = np.flatnonzero(~paid)
    ranked = rest[np.argsort(-scores[rest], kind="stable")]
    differs = (given != oracle)[ranked]
    fixed = terms(n, len(ranked), target=TARGET, delta=DELTA)
    draw = np.random.default_rng(0)
    found = []
    for _ in range(REPLAYS):
        audited = np.zeros(len(ranked), dtype=bool)
        audited[draw.choice(len(ranked), fixed.sample, replace=False)] = True
        asked = audited | (np.arange(len(ranked)) >= cut(fixed, audited, differs))
        final = np.where(paid, oracle, given)
        final[ranked[asked]] = oracle[ranked[asked]]
        left = int((final != oracle).sum())
        held = left <= math.floor((1 - TARGET) * n + 1e-9)
        found.append(((paid.sum() + asked.sum()) / n, held, np.mean(final == oracle), np.mean(final == gold)))
    names = ("oracle_share", "held", "agreement", "accuracy")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def read(home: Path) -> Queries:
    """What the database of this data directory holds."""
    return Queries(make_engine(f"sqlite:///{home / 'loracle.db'}"))


def say(contender: str, kind: str, figures: Mapping[str, float]) -> None:
    shown = {name: round(value, 4) for name, value in figures.items()}
    sys.stdout.write(json.dumps({"contender": contender, "from": kind, **shown}) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.distilling", description=__doc__)
    parser.add_argument("--file", type=Path, required=True, help="parquet with text and label 0, 1")
    parser.add_argument("--home", type=Path, required=True, help="a folder for the jobs; kept")
    parser.add_argument("--answers", type=int, default=2_000)
    options = parser.parse_args()
    home = options.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(options.file, columns=["text", "label"])
    texts, gold = table["text"].to_pylist(), table["label"].to_numpy()
    oracle = np.array([oracle_place(text, label) for text, label in zip(texts, gold.tolist(), strict=True)])
    known = {_end(text): LABELS[place] for text, place in zip(texts, oracle.tolist(), strict=True)}
    guarantee = ("--guarantee", str(TARGET), "--delta", str(DELTA), "--route", "decisions")

    # The fake thinks what the benchmark tells it to.
    with (
        mock.patch.object(answers, "rule_label", lambda text, _: (known[_end(text)], 0.9)),
        FakeOpenAI(port=PORT) as server,
    ):
        run(
            home / "distilled", server.url, "distill", str(options.file), "--out", str(home / "own"),
            "--labels", ",".join(LABELS), "--answers", str(options.answers), *guarantee,
        )  # fmt: skip
    queries = read(home / "distilled")
    distillation = queries.distillations.of(1)
    assert distillation is not None
    assert distillation.figures is not None
    names = ("trained", "bundled") if distillation.figures["chosen"] == "trained" else ("bundled", "trained")

    def labelled_by(name: str, file: Path, where: Path) -> Raters:
        """This adapter's labels of a file, scored in a home of its own."""
        run(where, "", "run", str(file), "--adapter", str(home / "own") if name == "trained" else "bundled")
        return read(where).raters(1)

    raters = queries.raters(1)
    assert len(raters) == len(gold), "a review was rejected"
    # The adapter that labelled the job, with what it left out there because the oracle had answered before; and the
    # other one, for the replays.
    labels, scores = raters.adapter.astype(np.int64), raters.adapter_score.copy()
    left_out = np.flatnonzero(labels == NONE)
    pq.write_table(table.take(left_out), home / "left_out.parquet")
    rest = labelled_by(names[0], home / "left_out.parquet", home / "left_out")
    labels[left_out], scores[left_out] = rest.adapter, rest.adapter_score
    other = labelled_by(names[1], options.file, home / names[1])
    by_adapter = {names[0]: (labels, scores), names[1]: (other.adapter.astype(np.int64), other.adapter_score)}
    learnt, dollars = raters.asked_for("training"), queries.jobs.get(1).spent
    paid, nothing = learnt | raters.asked_for("held_out"), np.zeros_like(learnt)
    price = dollars / (raters.oracle != NONE).sum()
    figures = {
        "oracle_share": float((raters.oracle != NONE).mean()),
        "agreement": float((raters.final == oracle).mean()),
        "accuracy": float((raters.final == gold).mean()),
    }
    say(f"distill, which chose the {names[0]} adapter", "a job", figures | {"dollars": dollars})

    def replayed(name: str, given: Codes, scores: Scores, paid: Flags) -> None:
        found = under_guarantee(given, scores, paid, oracle, gold)
        found |= {
            "alone": float((given == gold).mean()),
            "dollars": found["oracle_share"] * len(gold) * price,
        }
        say(name, f"{REPLAYS} replays", found)

    for title, name, before in (
        ("distill", names[0], paid),
        ("trained adapter", "trained", paid),
        ("bundled adapter", "bundled", nothing),
    ):
        replayed(title, *by_adapter[name], before)
    features = embeddings(texts, home / "embeddings.npy")
    replayed("regression on embeddings", *regression(features, oracle, learnt), learnt)
    everything = {
        "oracle_share": 1.0,
        "held": 1.0,
        "agreement": 1.0,
        "accuracy": float((oracle == gold).mean()),
    }
    say("oracle for all", "reckoned", everything | {"dollars": len(gold) * price})


if __name__ == "__main__":
    main()
