"""The log lines of a worker's processes."""

from __future__ import annotations

import logging
import sys


def log_lines(level: int | str) -> None:
    """Log lines go to stderr: time, level, sentence. Celery's own noise is left out."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    lines.addFilter(_without_foreign_tracebacks)
    logging.basicConfig(level=level, handlers=[lines], force=True)
    hush()
    # A lost connection or child is told by us, once and in words.
    for name in ("celery.worker.consumer", "celery.app.trace", "celery.worker.request", "multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def hush() -> None:
    """Keeps other libraries' chatter down at every level of ours: at DEBUG the OpenAI client logs whole requests, and
    so reviews."""
    for name in ("celery", "kombu", "alembic", "openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_foreign_tracebacks(record: logging.LogRecord) -> bool:
    # Their parameters may quote a review.
    if not record.name.startswith("worker"):
        record.exc_info = record.exc_text = None
    return True
