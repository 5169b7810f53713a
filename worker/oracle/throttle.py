"""How fast the oracle may be asked, by all workers together, in Redis; and whether its server answers at all."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from worker.errors import OracleInvalid, OracleQuotaSpent, OracleUnavailable

CONCURRENCY = "LORACLE_CONCURRENCY"
"""The variable that tells a worker of the openai lane how many requests it may have in flight."""
BREAKER_FAILURES = 10
"""Failures in a row, over all workers, that open the breaker."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 300.0
QUOTA_PAUSE_S = 600.0
PROBE_S = 90.0
"""How long the one request of a half-open breaker is waited for, longer than it can take: its worker may be dead."""
PATIENCE_S = 30.0
"""A longer wait is the ledger's: the batch goes back and is due after it."""
TICK_S = 0.5

# A bucket holds a tenth of a minute's share and fills at nine tenths of the rate, so that no minute sees more than
# the limit. A request larger than the bucket takes a full one and leaves a debt.
_COMMON = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function number(name) return tonumber(redis.call('HGET', KEYS[1], name) or '0') or 0 end
local function set(...) redis.call('HSET', KEYS[1], ...) redis.call('EXPIRE', KEYS[1], 86400) end
"""
_ADMIT = (
    _COMMON
    + """
local tokens, threshold = tonumber(ARGV[1]), tonumber(ARGV[4])
local open_until = number('open_until')
if now < open_until then return {'open', open_until - now, redis.call('HGET', KEYS[1], 'reason') or ''} end
local blocked_until = number('blocked_until')
if now < blocked_until then return {'wait', blocked_until - now, ''} end
if number('failures') >= threshold then
    if now < number('probe_until') then return {'wait', 500, ''} end
end
local wait, levels = 0, {}
for i, kind in ipairs({'requests', 'tokens'}) do
    local limit = tonumber(ARGV[i + 1])
    local told = number(kind .. '_limit')
    if told > 0 and (limit <= 0 or told < limit) then limit = told end
    if limit > 0 then
        local need = i == 1 and 1 or tokens
        local size = math.max(1, limit / 10)
        local rate = limit * 0.9 / 60000
        local at = number(kind .. '_at')
        local level = size
        if at > 0 then level = math.min(size, number(kind .. '_level') + (now - at) * rate) end
        local enough = math.min(need, size)
        if level < enough then wait = math.max(wait, (enough - level) / rate) end
        levels[kind] = level - need
    end
end
if wait > 0 then return {'wait', math.ceil(wait), ''} end
for kind, level in pairs(levels) do set(kind .. '_level', tostring(level), kind .. '_at', now) end
if number('failures') >= threshold then
    set('probe_until', now + tonumber(ARGV[5]))
    return {'probe', 0, ''}
end
return {'go', 0, ''}
"""
)
_ANSWERED = (
    _COMMON
    + """
-- An answer that was under way when the breaker opened says nothing of what the server does since.
if now >= number('open_until') then
    redis.call('HDEL', KEYS[1], 'failures', 'opened', 'open_until', 'probe_until', 'reason')
end
for i, kind in ipairs({'requests', 'tokens'}) do
    local told, left, back = tonumber(ARGV[i * 3 - 2]), tonumber(ARGV[i * 3 - 1]), tonumber(ARGV[i * 3])
    if told > 0 then set(kind .. '_limit', told) end
    local level = tonumber(redis.call('HGET', KEYS[1], kind .. '_level') or '')
    if level then
        level = level + back
        if left >= 0 and left < level then level = left end
        set(kind .. '_level', tostring(level))
    end
end
"""
)
_FAILED = (
    _COMMON
    + """
local kind, pause, threshold = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if kind == 'wait' then
    set('blocked_until', math.max(number('blocked_until'), now + pause))
    redis.call('HDEL', KEYS[1], 'probe_until')
elseif kind == 'quota' then
    set('failures', threshold, 'open_until', now + pause, 'reason', ARGV[4])
    redis.call('HDEL', KEYS[1], 'probe_until')
else
    local failures = number('failures') + 1
    set('failures', failures)
    if failures >= threshold and now >= number('open_until') then
        local opened = number('opened') + 1
        local longest = math.min(tonumber(ARGV[5]), pause * 2 ^ (opened - 1))
        set('opened', opened, 'open_until', math.floor(now + longest), 'reason', ARGV[4])
        redis.call('HDEL', KEYS[1], 'probe_until')
    end
end
"""
)


@dataclass(frozen=True, slots=True)
class BreakerState:
    """Whether the oracle is asked at all. `retry_in_s` is null while the breaker is closed."""

    failures: int
    retry_in_s: float | None
    reason: str | None

    @property
    def is_open(self) -> bool:
        """No request goes out."""
        return self.retry_in_s is not None


def connect(url: str) -> redis.Redis:
    """A client for `redis://`, `rediss://` or kombu's `redis+socket://`; it connects on first use."""
    # Redis' own retries would hold a request's thread for half a minute; the ledger asks again.
    options: dict[str, Any] = {
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "retry": Retry(NoBackoff(), 1),
    }
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
        url = f"unix://{parts.netloc}{parts.path}?db={database}"
    return redis.Redis.from_url(url, **options)


class Throttle(Protocol):
    """Lets requests through: so many at once, as fast as the server allows, none while it is known to be down."""

    def admit(self, tokens: int, heartbeat: Callable[[], None]) -> AbstractContextManager[bool]:
        """Waits until a request of so many tokens may go out; the request is in flight until the exit.

        The context says whether it is the one that a half-open breaker lets through, to see how the server is.

        Raises:
            OracleUnavailable: the circuit breaker is open, or the wait would be long.
        """

    def answered(self, headers: Mapping[str, str], *, unused: int = 0) -> None:
        """The server answered; `headers` may say what it allows, `unused` of the admitted tokens weren't needed."""

    def failed(self, error: OracleUnavailable) -> None:
        """The server didn't answer, or wants to be left alone for `error.retry_after_s`."""


class RedisThrottle:
    """The throttle of one model at one address. `concurrency` bounds the requests in flight of this process;
    limits are per minute, 0 for none but what the server's headers say. Safe for several threads."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        base_url: str,
        model: str,
        concurrency: int,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
    ) -> None:
        self._client = client
        self._key = key_of(base_url, model)
        self._slots = threading.BoundedSemaphore(concurrency)
        self._limits = (requests_per_minute, tokens_per_minute)
        self._admit = client.register_script(_ADMIT)
        self._answered = client.register_script(_ANSWERED)
        self._failed = client.register_script(_FAILED)

    @contextmanager
    def admit(self, tokens: int, heartbeat: Callable[[], None]) -> Iterator[bool]:
        """Waits until a request of so many tokens may go out; it is in flight until the exit. True if it is the one
        that a half-open breaker lets through.

        Raises:
            OracleUnavailable: the breaker is open, Redis is away, or the wait would be long.
        """
        while not self._slots.acquire(timeout=TICK_S):
            heartbeat()
        try:
            yield self._wait(tokens, heartbeat)
        finally:
            self._slots.release()

    def answered(self, headers: Mapping[str, str], *, unused: int = 0) -> None:
        """The server answered; `unused` of the tokens it was admitted with are given back."""
        arguments: list[Any] = []
        for kind, back in (("requests", 0), ("tokens", unused)):
            arguments.append(_whole(headers.get(f"x-ratelimit-limit-{kind}"), 0))
            arguments.append(_whole(headers.get(f"x-ratelimit-remaining-{kind}"), -1))
            arguments.append(back)
        with suppress(RedisError):
            self._answered(keys=[self._key], args=arguments)

    def failed(self, error: OracleUnavailable) -> None:
        """Counts a failure, opens the breaker after ten in a row or without quota, or waits as asked."""
        kind, pause_s = "retry", FIRST_PAUSE_S
        if isinstance(error, OracleQuotaSpent):
            kind, pause_s = "quota", QUOTA_PAUSE_S
        elif error.limited:
            kind, pause_s = "wait", error.retry_after_s or 1.0
        with suppress(RedisError):
            self._failed(
                keys=[self._key],
                args=[kind, int(pause_s * 1000), BREAKER_FAILURES, str(error), int(LONGEST_PAUSE_S * 1000)],
            )

    def _wait(self, tokens: int, heartbeat: Callable[[], None]) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer, milliseconds, reason = self._admit(
                    keys=[self._key], args=[tokens, *self._limits, BREAKER_FAILURES, int(PROBE_S * 1000)]
                )
            except RedisError as error:
                raise OracleUnavailable(
                    f"Redis is away ({type(error).__name__}), and nothing is sent without its rate limits",
                    limited=True,
                ) from error
            seconds = float(milliseconds) / 1000
            if answer in (b"go", b"probe"):
                return bool(answer == b"probe")
            if answer == b"open":
                raise OracleUnavailable(
                    f"the oracle isn't asked for a while: {reason.decode(errors='replace')}",
                    retry_after_s=seconds,
                    limited=True,
                )
            if time.monotonic() + seconds > deadline:
                raise OracleUnavailable(
                    "the rate limit leaves no room now", retry_after_s=seconds, limited=True
                )
            heartbeat()
            time.sleep(min(TICK_S, seconds))


def read_breaker(client: redis.Redis, *, base_url: str, model: str) -> BreakerState | None:
    """Whether the oracle is asked at all; None while Redis is away."""
    try:
        found: dict[bytes, bytes] = client.hgetall(key_of(base_url, model))  # type: ignore[assignment]
        seconds, micros = client.time()
    except RedisError:
        return None
    left = float(found.get(b"open_until", b"0")) / 1000 - (seconds + micros / 1e6)
    reason = found.get(b"reason")
    return BreakerState(
        failures=int(float(found.get(b"failures", b"0"))),
        retry_in_s=left if left > 0 else None,
        reason=None if reason is None else reason.decode(errors="replace"),
    )


def end_pause(client: redis.Redis, *, base_url: str, model: str) -> None:
    """The breaker lets a request out at once, to see how the server is. A wait that the server asked for stays; with
    Redis away nothing happens."""
    with suppress(RedisError):
        client.hdel(key_of(base_url, model), "open_until", "probe_until")


def key_of(base_url: str, model: str) -> str:
    """The Redis key of a model at an address."""
    return f"loracle:oracle:{hashlib.sha256(f'{base_url} {model}'.encode()).hexdigest()[:16]}"


def _whole(text: str | None, default: int) -> int:
    try:
        return int(float(text)) if text is not None else default
    except ValueError:
        return default


REFUSALS_BELIEVED = 3
"""Refused requests in a row that are put down to their reviews after a good answer; the next one asks for a check."""
REMEMBERED_S = 5.0
"""How long a finding stops new calls too: long enough to stop the job, shorter than mending a server takes."""
LONGEST_TURN_S = 120.0
"""How long others wait for the request that goes out alone: it takes less, unless the server drips for ever."""


class Standing:
    """What is known of a server. Safe for several threads.

    A refusal is a review's fault only where other requests succeed. So the first request to a server goes out alone,
    and a refused one asks for a check, with a text of our own, unless the server answered well shortly before. What
    the check finds is a finding: it ends every call that began before it.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._lock = threading.Lock()
        self._open = False
        self._believed = 0
        self._finding: str | None = None
        self._found_at = 0.0
        self._findings = 0

    @property
    def findings(self) -> int:
        """How often the server was found at fault so far: a call remembers it from its beginning."""
        return self._findings

    @contextmanager
    def turn(self, since: int, heartbeat: Callable[[], None]) -> Iterator[bool]:
        """Waits until a request may go out: at once, unless nobody knows yet whether the server answers. True if it
        was found at fault before, and has to be checked first.

        `since` is what `findings` was when the call began.

        Raises:
            OracleInvalid: the server is at fault.
        """
        with ExitStack() as alone:
            if not self._open:
                alone.enter_context(self._alone(heartbeat))
                if self._open:
                    alone.close()
            self._stop_if_at_fault(since)
            yield self._finding is not None

    def answered(self) -> None:
        """The server gave a good answer."""
        with self._lock:
            self._open, self._believed, self._finding = True, REFUSALS_BELIEVED, None

    def unclear(self) -> None:
        """The server gave no answer, or was busy. That is the throttle's business: others needn't wait any longer."""
        with self._lock:
            self._open = self._finding is None

    def refused(self, since: int, heartbeat: Callable[[], None], check: Callable[[], None]) -> None:
        """A whole request was refused. Calls `check` unless the server answered well before, or another thread's
        check has found out meanwhile; returns if the reviews are at fault.

        Raises:
            OracleInvalid: the server is at fault.
        """
        if self._believe():
            return
        with self._alone(heartbeat):
            self._stop_if_at_fault(since)
            if not self._believe():
                check()

    def at_fault(self, finding: str) -> OracleInvalid:
        """Notes a finding; the error to raise."""
        with self._lock:
            self._open, self._believed = False, 0
            self._finding, self._found_at = finding, time.monotonic()
            self._findings += 1
        return OracleInvalid(finding)

    def _believe(self) -> bool:
        with self._lock:
            believed = self._believed > 0
            self._believed -= believed
        return believed

    def _stop_if_at_fault(self, since: int) -> None:
        with self._lock:
            if self._finding is None:
                return
            if self._findings > since or time.monotonic() - self._found_at < REMEMBERED_S:
                raise OracleInvalid(self._finding)

    @contextmanager
    def _alone(self, heartbeat: Callable[[], None]) -> Iterator[None]:
        mine, end = False, time.monotonic() + LONGEST_TURN_S
        while not (mine := self._turn.acquire(timeout=TICK_S)) and time.monotonic() < end:
            heartbeat()
        try:
            yield
        finally:
            if mine:
                self._turn.release()
