"""Errors as people and programs get them: application/problem+json (RFC 9457), or a page for a browser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong: an HTTP status, the kind of error, and the sentence that the command line would say."""

    status: int
    title: str
    detail: str
