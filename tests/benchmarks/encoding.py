"""A batch of very long texts: seconds until its token ids are there, whole and cut, in turn."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from tests import SAMPLE
from worker.bootstrap import BUNDLED
from worker.model import encoding
from worker.model.encoding import Encoding, encode
from worker.model.pretrained import load_tokenizer

CHARACTERS = 200_000


def measure(*, texts: int) -> Iterator[dict[str, Any]]:
    """Encodes `texts` texts of 200,000 characters for the bundled adapter, once by tokenizing all of it."""
    with SAMPLE.open(encoding="utf-8") as file:
        sample = " <br /> ".join(row["text"] for row in csv.DictReader(file))
    batch = [(sample * (CHARACTERS // len(sample) + 1))[:CHARACTERS]] * texts
    tokenizer = load_tokenizer(BUNDLED)
    encode(tokenizer, batch[:1], Encoding())
    ids: dict[str, list[list[int]]] = {}
    for way, characters in (("whole", CHARACTERS), ("cut", encoding.CHARACTERS_PER_TOKEN)):
        with patch.object(encoding, "CHARACTERS_PER_TOKEN", characters):
            started = time.perf_counter()
            ids[way] = encode(tokenizer, batch, Encoding())
            seconds = time.perf_counter() - started
        yield {"benchmark": "encode", "texts": texts, "way": way, "seconds": round(seconds, 2)}
    yield {"benchmark": "encode", "same_ids": ids["whole"] == ids["cut"]}
