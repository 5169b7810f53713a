"""Sentences whose logits an adapter's manifest keeps: whatever computes the adapter must give them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from worker.errors import BackendUnfit
from worker.model.devices import out_of_memory
from worker.model.manifest import Manifest
from worker.model.scaling import softmax

PROBES = (
    "An absolute delight from the first minute to the last.",
    "Two hours of my life that I will never get back.",
    "The story drags in places, but the ending makes up for all of it.",
    "Broke after a week, and nobody answered my letters.",
    "It is what it is.",
)
LOGIT_TOLERANCE = 1e-3
PROBABILITY_TOLERANCE = 0.02
ROUGH_TOLERANCE = 0.2
"""Of probabilities in whole numbers of 8 bits, which move sure ones too."""


class Computer(Protocol):
    """What computes an adapter."""

    def probe_logits(self, texts: Sequence[str], *, together: bool = False) -> list[list[float]]:
        """Logits (N, labels) of these texts: one by one, or `together`, so that padding has a part in them."""
        ...


def difference(
    computer: Computer, manifest: Manifest, *, exact: bool, together: bool = False, rough: bool = False
) -> tuple[float, float]:
    """How far the probes' logits, or else probabilities, are from the manifest's at most; how far they may be."""
    texts = [probe.text for probe in manifest.probes]
    found = np.array(computer.probe_logits(texts, together=together))
    expected = np.array([probe.logits for probe in manifest.probes])
    if not exact:
        found, expected = softmax(found), softmax(expected)
    limit = ROUGH_TOLERANCE if rough else PROBABILITY_TOLERANCE
    return float(np.abs(found - expected).max()), LOGIT_TOLERANCE if exact else limit


def check_together(
    computer: Computer, manifest: Manifest, way: str, *, exact: bool, rough: bool = False
) -> None:
    """The probes alone and as a batch: a traced model may have taken a shape or an empty mask for a constant, and
    what is packed may look at its neighbours.

    Raises:
        BackendUnfit: they get other scores in this `way`.
    """
    for together in (False, True):
        try:
            found, limit = difference(computer, manifest, exact=exact, together=together, rough=rough)
        except (RuntimeError, OSError) as error:
            if out_of_memory(error):
                raise
            raise BackendUnfit(f"{way} fails with the probe sentences: {error}") from error
        if not found <= limit:
            raise BackendUnfit(
                f"{way} gives the probe sentences other scores (by {found:.2g}, allowed {limit:g})"
            )
