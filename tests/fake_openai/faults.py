"""What can go wrong between here and OpenAI."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "status", "rate_limit", "quota", "hang", "reset", "truncated", "short_body", "slow_headers", "refusal",
    "refuse_one", "content_filter", "length", "wrong_keys", "missing_one", "extra_one", "wrong_label", "not_json",
    "shuffled", "bad_request", "unsupported", "unprocessable", "prose", "echo",
]  # fmt: skip
QUOTA_CODES = (
    "insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one request. `seconds` is how long it hangs or dawdles, `message` what a
    `status` says."""

    kind: Kind
    status: int = 500
    code: str | None = None
    param: str | None = None
    retry_after: str | None = None
    retry_after_ms: str | None = None
    seconds: float = 0.2
    message: str = "said the fake"


TRANSIENT = (
    Fault("status", status=500),
    Fault("status", status=503),
    Fault("status", status=408),
    Fault("status", status=409),
    Fault("rate_limit", retry_after="0.05"),
    Fault("rate_limit"),
    Fault("reset"),
    Fault("truncated"),
    Fault("short_body"),
    Fault("wrong_keys"),
    Fault("missing_one"),
    Fault("not_json"),
    Fault("slow_headers", seconds=0.1),
)
"""What a good server does on a bad day: everything is well at the next try."""


ODD_VOICES = {
    "a 400": Fault("status", status=400, code="invalid_request_error"),
    "a 422 with details": Fault("unprocessable"),
    "prose": Fault("prose"),
    "prose for content": Fault("not_json"),
    "wrong keys": Fault("wrong_keys"),
    "refusals": Fault("refusal"),
}
"""How a server can refuse every request, or give no answer that can be used: as `poison={"": …}`."""


def draw(generator: random.Random, share: float) -> Fault | None:
    """A transient fault with this probability."""
    return generator.choice(TRANSIENT) if generator.random() < share else None
