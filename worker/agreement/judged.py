"""A uniform sample of a job's reviews for people to judge: the first of an order drawn by a hash, which needs no
memory. Whoever judges more of them later goes on in the same order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import Rows
from worker.agreement.guarantee import chance


def keys(job_id: int, row_no: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The place of each review (N,) in the order, as a number; the same in every process and at any time."""
    return np.array([chance(0, job_id, row, "judged") for row in row_no.tolist()], dtype=np.uint64)


def drawn(job_id: int, row_no: NDArray[np.int64], judged: Rows) -> Rows:
    """The sample (N,) of which people were given the reviews `judged` (N,): all up to the last of them in the order.

    A review of it that was judged before, for looking doubtful, belongs to it too: else it would lack these.
    """
    if not judged.any():
        return judged
    order = keys(job_id, row_no)
    found: Rows = order <= order[judged].max()
    return found
