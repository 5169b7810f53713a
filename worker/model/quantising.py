"""A model in whole numbers of 8 bits, and how near to another label its scores can't be trusted."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from worker.errors import BackendUnfit
from worker.model import openvino
from worker.model.devices import TWO, cpu_flags
from worker.model.encoding import Encoding, encode

SAMPLE = Path(__file__).parent.parent / "data" / "sample_reviews.csv"
"""Texts of our own: what a model is quantised with is never a user's."""

WHOLE_NUMBERS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""What a processor has that is quick with 8 bits. Without it they took 1.2 times as long as fp32 (with AVX2)."""

MOST_CHANGED = 2.5e-4
"""So large a share of labels may be changed by the rounding, as far as the sample tells."""
MOST_TWICE = 0.3
"""Where more reviews than this would be scored twice, nothing is won."""

log = logging.getLogger(__name__)


def quantised(
    trunk: Any, exact: openvino.Compiled, head: Any, encoding: Encoding, *, threads: int | None = None
) -> openvino.Compiled:
    """`exact`, asked only where its quantised trunk leaves the label open. `trunk` is what `exact` was compiled from.

    The margin is chosen from the errors on the sample that the model is quantised with.

    Raises:
        BackendUnfit: NNCF isn't installed, or whole numbers are too rough for this model.
    """
    if importlib.util.find_spec("nncf") is None:
        raise BackendUnfit(f"{TWO} needs NNCF, which isn't installed (pip install 'loracle[int8]')")
    openvino.library()
    import nncf

    nncf.set_log_level(logging.ERROR)
    if not WHOLE_NUMBERS & cpu_flags():
        log.warning(
            "This processor has no instructions for products of 8 bits (VNNI, AMX): %s is slower than fp32 here.",
            TWO,
        )
    log.info("The model is quantised for this machine, once: that takes a minute or so.")
    ids = _sample(exact.tokenizer, encoding)
    # Its progress bars would be written among results.
    with contextlib.redirect_stdout(io.StringIO()):
        made = nncf.quantize(
            trunk, nncf.Dataset(ids, _inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(ids)
        )
    compiled = openvino.core().compile_model(made, "CPU", openvino.properties(TWO, threads))
    rough = openvino.Compiled(compiled, head, exact.tokenizer, exact.padding_id)
    found, true = (np.concatenate([one(*_inputs(each)) for each in ids]) for one in (rough, exact))
    margin = choose_margin(found, true)
    twice = float((openvino.lead(found) < margin).mean())
    if twice > MOST_TWICE:
        raise BackendUnfit(
            f"whole numbers of 8 bits are too rough for this adapter: {twice:.0%} of the reviews would have to be "
            "scored twice"
        )
    log.info(
        "Quantised: %.1f%% of the sample's reviews lie so near to another label that fp32 decides.",
        100 * twice,
    )
    return exact.behind(compiled, margin)


def choose_margin(rough: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """The smallest lead (difference of the two largest logits) from which on rough labels are kept.

    Both are logits (N, labels) of the same texts. A label changes where the lead's error is larger than the lead.
    Errors and leads are taken for independent, so that N texts give N x N cases; at most MOST_CHANGED of these may
    be changed labels.
    """
    leads = openvino.lead(rough)
    top = rough.argmax(axis=1)[:, None]
    behind = np.take_along_axis(rough, top, 1) - rough - (np.take_along_axis(exact, top, 1) - exact)
    errors = np.sort(behind.max(axis=1))
    order = np.argsort(leads)
    # Of each lead: how many errors are larger.
    changed = len(errors) - np.searchsorted(errors, leads[order], side="right")
    kept = np.cumsum(changed[::-1])[::-1] / len(leads) ** 2
    enough = np.flatnonzero(kept <= MOST_CHANGED)
    return float(leads[order][enough[0]]) if len(enough) else float(np.inf)


def _sample(tokenizer: Tokenizer, encoding: Encoding) -> list[list[int]]:
    with SAMPLE.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return encode(tokenizer, texts, encoding)


def _inputs(ids: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([ids], dtype=np.int64), np.ones((1, len(ids)), dtype=np.int64)
