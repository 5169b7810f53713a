"""The OpenAI client as Loracle uses it, and what each of its errors means."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import openai
from openai import OpenAI

from worker.errors import OracleInvalid, OracleQuotaSpent, OracleUnavailable
from worker.logs import hush

TIMEOUT_S = 60.0
LONGEST_REASON = 200

QUOTA_CODES = ("insufficient_quota", "credit_balance_exhausted")
QUOTA_ENDINGS = ("_spend_limit_exceeded", "_usage_limit_exceeded", "_hard_limit_reached")
UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")

Kind = Literal["wait", "retry", "quota", "invalid", "drop", "bisect"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a failed request asks for.

    `wait`: the server's rate limit, not our fault. `retry`: it may work next time. `quota`: it won't until somebody
    pays. `invalid`: it never will. `drop`: without the parameter `param`. `bisect`: with fewer reviews.
    `billed` unless the server said that it did nothing.
    """

    kind: Kind
    reason: str
    retry_after_s: float | None = None
    param: str | None = None
    billed: bool = False
    refused: bool = False


def make_client(api_key: str | None, base_url: str, *, timeout_s: float = TIMEOUT_S) -> OpenAI:
    """A client that never retries by itself: retries are ours, so that each is paid for and counted.

    Raises:
        OracleInvalid: there is no key.
    """
    if not api_key:
        raise OracleInvalid(
            "OPENAI_API_KEY is not set: the oracle can't be asked. Set it for the worker; a server of your own "
            "takes any text as key."
        )
    # OPENAI_LOG=debug, read when the library is imported, would log whole requests.
    hush()
    return OpenAI(api_key=api_key, base_url=base_url, max_retries=0, timeout=timeout_s)


def explain(error: Exception, model: str, base_url: str) -> Trouble:
    """What to do about an error of the client. The table is in the project's notes on the API.

    Server messages are cut, and none of them is repeated where it may quote a review.
    """
    if isinstance(error, openai.APIConnectionError):
        what = "no answer in time" if isinstance(error, openai.APITimeoutError) else "the connection broke"
        # The server may have done the work all the same.
        return Trouble("retry", f"{base_url}: {what}", billed=True)
    if isinstance(error, openai.APIResponseValidationError | json.JSONDecodeError | UnicodeDecodeError):
        return Trouble("retry", f"{base_url} sent an answer that isn't JSON", billed=True)
    if not isinstance(error, openai.APIStatusError):
        return Trouble("retry", f"{type(error).__name__} while asking {base_url}", billed=True)
    status, code = error.status_code, error.code or ""
    said = f"{base_url} answered {status}{f' {code}' if code else ''}"
    if status == 429:
        if code in QUOTA_CODES or code.endswith(QUOTA_ENDINGS):
            return Trouble("quota", f"{said}: the account has no quota or credit left")
        return Trouble("wait", said, retry_after_s=retry_after(error.response.headers))
    if status in (401, 403):
        return Trouble("invalid", f"{said}: OPENAI_API_KEY isn't accepted for the model {model}")
    if status in (404, 405):
        return Trouble(
            "invalid",
            f"{said}: it has no model {model}, or not this route. Check --model, --route and OPENAI_BASE_URL",
        )
    if status in (408, 409) or status >= 500:
        return Trouble("retry", said, retry_after_s=retry_after(error.response.headers))
    if status == 400 and code in UNSUPPORTED_CODES and error.param:
        return Trouble("drop", said, param=str(error.param))
    return Trouble("bisect", said, refused=code in ("content_policy_violation", "content_filter"))


def raise_for(trouble: Trouble) -> None:
    """Raises what ends a call for good.

    Raises:
        OracleInvalid: it never can succeed.
        OracleQuotaSpent: not before somebody pays.
    """
    if trouble.kind == "invalid":
        raise OracleInvalid(trouble.reason)
    if trouble.kind == "quota":
        raise OracleQuotaSpent(trouble.reason)


def unavailable(trouble: Trouble) -> OracleUnavailable:
    """The error of a call that was tried often enough."""
    return OracleUnavailable(
        trouble.reason, retry_after_s=trouble.retry_after_s, limited=trouble.kind == "wait"
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, by `retry-after-ms` or `retry-after`."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / scale
            if 0 <= seconds < 86_400:
                return seconds
    return None
