"""A uniform sample of a job's reviews for people to judge: the first of an order drawn by a hash, which needs no
memory. Whoever judges more of them later goes on in the same order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import Rows
from worker.agreement.guarantee import chance

Keys = NDArray[np.uint64]


def keys(job_id: int, row_no: NDArray[np.int64]) -> Keys:
    """The place of each review (N,) in the order, as a number; the same in every process and at any time."""
    return np.array([chance(0, job_id, row, "judged") for row in row_no.tolist()], dtype=np.uint64)


def drawn(order: Keys, judged: Rows) -> Rows:
    """The sample (N,) of which the reviews `judged` (N,) were given to people: all up to the last of them.

    A review of it that was judged before, for looking doubtful, belongs to it too: else it would lack these.
    """
    if not judged.any():
        return np.zeros(len(judged), dtype=bool)
    found: Rows = order <= order[judged].max()
    return found
