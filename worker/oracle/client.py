"""The OpenAI client as Loracle uses it, what each of its errors means, and what all routes have in common."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import openai
from openai import OpenAI

from worker.errors import OracleInvalid, OracleQuotaSpent, OracleUnavailable, OracleUnfit
from worker.logs import hush
from worker.oracle.prices import Charge, Price
from worker.oracle.prompts import CAPS, PARAMETERS
from worker.reviews import Outcome

TIMEOUT_S = 60.0

QUOTA_CODES = ("insufficient_quota", "credit_balance_exhausted")
QUOTA_ENDINGS = ("_spend_limit_exceeded", "_usage_limit_exceeded", "_hard_limit_reached")
REFUSAL_CODES = ("content_policy_violation", "content_filter")

LONGEST_QUOTE, LONGEST_MESSAGE = 200, 10_000
KEY_PIECE, TEXT_PIECE, NO_PIECE = 8, 20, 5
"""So many characters in a row tell something of a key or of a review; a whole key or review of `NO_PIECE` doesn't."""

_UNREADABLE = (
    openai.APIResponseValidationError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    # JSON nested too deeply, and numbers of too many digits.
    RecursionError,
    OverflowError,
)
MOST_TOKENS = 10**9
"""More than any request takes."""

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Kind = Literal["wait", "retry", "quota", "invalid", "drop", "bisect"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a failed request asks for.

    `wait`: the server's rate limit, not our fault. `retry`: it may work next time. `quota`: it won't until somebody
    pays. `invalid`: it never will. `drop`: without the parameters `params`. `bisect`: with fewer reviews.
    `billed` unless the server said that it did nothing. `most_tokens` is its limit per minute, where it said so.
    `unreadable`: it answered, but not with JSON. `accepted`: with JSON, whose answer is of no use.
    """

    kind: Kind
    reason: str
    retry_after_s: float | None = None
    params: frozenset[str] = frozenset()
    billed: bool = False
    refused: bool = False
    most_tokens: int | None = None
    unreadable: bool = False
    accepted: bool = False


def make_client(api_key: str | None, base_url: str, *, timeout_s: float = TIMEOUT_S) -> OpenAI:
    """A client that never retries by itself: retries are ours, so that each is paid for and counted.

    Raises:
        OracleUnfit: there is no key.
    """
    if not api_key:
        raise OracleUnfit(
            "OPENAI_API_KEY is not set: the oracle can't be asked. Set it for the worker; a server of your own "
            "takes any text as key."
        )
    # OPENAI_LOG=debug, read when the library is imported, would log whole requests.
    hush()
    return OpenAI(api_key=api_key, base_url=base_url, max_retries=0, timeout=timeout_s)


def explain(
    error: Exception, model: str, base_url: str, *, quoted: str = "", params: frozenset[str] = frozenset()
) -> Trouble:
    """What to do about an error of the client.

    Of what the server says only its code is repeated, since a message may quote a review. `quoted` are words of it
    that are known to hold none, see `quote`. `params` are parameters that it refuses, see `named`.
    """
    if isinstance(error, openai.APIConnectionError):
        what = (
            "no answer in time"
            if isinstance(error, openai.APITimeoutError)
            else "nothing answers there, or the connection broke (is OPENAI_BASE_URL right?)"
        )
        # Once it is connected the server may have done the work all the same.
        return Trouble("retry", f"{base_url}: {what}", billed=not _never_connected(error))
    if isinstance(error, _UNREADABLE):
        return Trouble("retry", f"{base_url} sent an answer that isn't JSON", billed=True, unreadable=True)
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
    said = f"{said}: {quoted}" if quoted else said
    if status in (400, 422) and params and code not in REFUSAL_CODES:
        return Trouble("drop", said, params=params)
    return Trouble("bisect", said, refused=code in REFUSAL_CODES)


def _never_connected(error: BaseException) -> bool:
    """Whether the connection was refused, or nobody was there: nothing was sent."""
    cause = error.__cause__
    # By name: the client's HTTP library may be either of two.
    return type(cause).__name__ in ("ConnectError", "ConnectTimeout")


_PLACE = re.compile(r"""['"]loc['"]: ?[\[(](?:['"]body['"], ?)?['"](\w+)['"]""")
"""Pydantic's place of an error, in a message that holds its details as text."""
_TOO_MUCH = re.compile(r"too (large|big|high|long|many)|at most|maximum|exceed|less than|greater than", re.I)
_SAID = {"response_format": ("responseformat", "jsonschema", "jsonobject")}


def named(body: object, names: Collection[str], texts: Sequence[str]) -> frozenset[str]:
    """Which of the parameters `names` an error's body says are refused: in `param`, in the places of its details, or
    else in its words.

    Words that quote one of these texts, all that was sent, may quote the parameters too: they name nothing, and so
    does a word that is also in a text. A limit that is too high for a request isn't unknown.
    """
    words = _words(body)[:LONGEST_MESSAGE]
    places = set(_places(body))
    found = places & set(names)
    if not places and not any(_holds_piece(words, text, TEXT_PIECE) for text in texts):
        said = set(re.findall(r"\w+", _plain(words)))
        sent = " ".join(map(_plain, texts))
        found = {
            name
            for name in names
            if any(word in said and word not in sent for word in _SAID.get(name, (_plain(name),)))
        }
    if _TOO_MUCH.search(words):
        found -= set(CAPS)
    return frozenset(found)


def _places(body: object) -> Iterator[str]:
    if isinstance(body, str):
        yield from _PLACE.findall(body)
    elif isinstance(body, list):
        for one in body:
            yield from _places(one)
    elif isinstance(body, Mapping):
        place = body.get("loc")
        if isinstance(place, list):
            yield next((part for part in place if isinstance(part, str) and part != "body"), "")
        param = body.get("param")
        # Some put a kind of error there.
        if isinstance(param, str) and param.split(".")[0] in PARAMETERS:
            yield param.split(".")[0]
        for key in ("error", "detail", "message"):
            yield from _places(body.get(key))


def _plain(text: str) -> str:
    return text.replace("_", "").lower()


def quote(error: Exception, *, key: str, texts: Sequence[str]) -> str:
    """What the server said of a request without reviews: one printable line, cut. Empty where it said nothing, or
    where its words hold a piece of the key or of one of these texts all the same."""
    if not isinstance(error, openai.APIStatusError):
        return ""
    words = _one_line(_words(error.body)[: 10 * LONGEST_QUOTE])
    if len(words) > LONGEST_QUOTE:
        words = f"{words[: LONGEST_QUOTE - 1]}…"
    hidden = _holds_piece(words, key, KEY_PIECE) or any(
        _holds_piece(words, _one_line(text), TEXT_PIECE) for text in texts
    )
    return "" if hidden else words


def _words(body: object) -> str:
    """The message in an error's body: OpenAI's `message`, FastAPI's `detail`, or all of it."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(map(_words, body))
    if isinstance(body, Mapping):
        if isinstance(body.get("msg"), str):
            place = body.get("loc")
            return (
                f"{'.'.join(map(str, place))}: {body['msg']}" if isinstance(place, list) else str(body["msg"])
            )
        for key in ("message", "detail", "error"):
            if body.get(key):
                return _words(body[key])
    return json.dumps(body, ensure_ascii=False) if body else ""


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _holds_piece(words: str, secret: str, size: int) -> bool:
    """Whether `size` characters of the secret in a row are in these words; all of it where it has fewer."""
    size = min(size, len(secret))
    return size > NO_PIECE and any(
        words[start : start + size] in secret for start in range(len(words) - size + 1)
    )


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


def unavailable(
    trouble: Trouble, *, retry_after_s: float | None = None, limited: bool = False
) -> OracleUnavailable:
    """The error of a call that was tried often enough, or that is no review's fault (`limited`)."""
    return OracleUnavailable(
        trouble.reason,
        retry_after_s=retry_after_s if retry_after_s is not None else trouble.retry_after_s,
        limited=limited or trouble.kind == "wait",
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


def tokens_of(said: object) -> int | None:
    """A number of tokens as a server says it; None if it says none. Others would spoil all sums of money."""
    return said if type(said) is int and 0 <= said <= MOST_TOKENS else None


def name_of(said: object) -> str | None:
    """What a server calls a request or a model; None if that is no name that a database takes."""
    return said if isinstance(said, str) and said.isprintable() else None


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer: an outcome for each review in order, or None where it can't be trusted.

    `trouble` says why, for `state`. `too_long`: the answer was cut off at its limit.
    """

    outcomes: Sequence[Outcome | None]
    input_tokens: int | None
    output_tokens: int | None
    model: str | None
    request_id: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    trouble: str = "the answer isn't valid"
    state: Literal["refused", "unanswered"] = "unanswered"
    too_long: bool = False

    def charge(self, price: Price) -> Charge | None:
        """What it took; None where the server doesn't say."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return Charge(
            price.cost(self.input_tokens, self.output_tokens), self.input_tokens + self.output_tokens
        )
