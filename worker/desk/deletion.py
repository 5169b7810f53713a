"""What a job leaves behind at OpenAI, and how it is taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.bootstrap import Oracles, Store
from worker.errors import LoracleError
from worker.settings import Settings
from worker.store.deletion import UploadedFile

UPLOADS_LIVE_S = 4 * 24 * 3600
"""OpenAI forgets uploads after three days by itself."""


def forgetting(settings: Settings, store: Store) -> Callable[[Sequence[UploadedFile]], list[UploadedFile]]:
    """Deletes uploads at OpenAI as well as it can; what is left."""

    def forget(files: Sequence[UploadedFile]) -> list[UploadedFile]:
        live = [one for one in files if one.age_s < UPLOADS_LIVE_S]
        if not live:
            return []
        from worker.oracle.bulk import BulkScorer

        oracles, left = Oracles(settings, store), []
        for one in live:
            try:
                scorer = oracles(one.scorer_id)
            except LoracleError:
                # No key, or for another address.
                left.append(one)
                continue
            if not isinstance(scorer, BulkScorer) or not scorer.forget(one.file_id):
                left.append(one)
        return left

    return forget
