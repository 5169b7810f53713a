"""The OpenAI client as Loracle uses it, and what each of its errors means."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import openai
from openai import OpenAI

from worker.errors import OracleInvalid, OracleQuotaSpent, OracleUnavailable
from worker.logs import hush

TIMEOUT_S = 60.0

QUOTA_CODES = ("insufficient_quota", "credit_balance_exhausted")
QUOTA_ENDINGS = ("_spend_limit_exceeded", "_usage_limit_exceeded", "_hard_limit_reached")
UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Kind = Literal["wait", "retry", "quota", "invalid", "drop", "bisect"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a failed request asks for.

    `wait`: the server's rate limit, not our fault. `retry`: it may work next time. `quota`: it won't until somebody
    pays. `invalid`: it never will. `drop`: without the parameter `param`. `bisect`: with fewer reviews.
    `billed` unless the server said that it did nothing. `most_tokens` is its limit per minute, where it said so.
    """

    kind: Kind
    reason: str
    retry_after_s: float | None = None
    param: str | None = None
    billed: bool = False
    refused: bool = False
    most_tokens: int | None = None


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
    """What to do about an error of the client. Of what the server says its code alone is repeated: a message may
    quote a review."""
    if isinstance(error, openai.APIConnectionError):
        what = "no answer in time" if isinstance(error, openai.APITimeoutError) else "the connection broke"
        # The server may have done the work all the same.
        return Trouble("retry", f"{base_url}: {what}", billed=True)
    if isinstance(error, openai.APIResponseValidationError | json.JSONDecodeError | UnicodeDecodeError):
        return Trouble("retry", f"{base_url} sent an answer that isn't JSON", billed=True)
    if not isinstance(error, openai.APIStatusError):
        return Trouble("retry", f"{type(error).__name__} while asking {base_url}", billed=True)
    status, code = error.status_code, plain_code(error.code)
    said = f"{base_url} answered {status}{f' {code}' if code else ''}"
    if status == 429:
        if code in QUOTA_CODES or code.endswith(QUOTA_ENDINGS):
            return Trouble("quota", f"{said}: the account has no quota or credit left")
        return Trouble(
            "wait",
            said,
            retry_after_s=retry_after(error.response.headers),
            most_tokens=_whole(error.response.headers.get("x-ratelimit-limit-tokens")),
        )
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


def plain_code(code: object) -> str:
    """The code, if it is one: a word that can't quote a review."""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


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


def unavailable(trouble: Trouble, *, retry_after_s: float | None = None) -> OracleUnavailable:
    """The error of a call that was tried often enough."""
    return OracleUnavailable(
        trouble.reason,
        retry_after_s=retry_after_s if retry_after_s is not None else trouble.retry_after_s,
        limited=trouble.kind == "wait",
    )


def _whole(text: str | None) -> int | None:
    with contextlib.suppress(TypeError, ValueError):
        return int(float(str(text)))
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, by `retry-after-ms` or `retry-after`."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / scale
            if 0 <= seconds < 86_400:
                return seconds
    return None
