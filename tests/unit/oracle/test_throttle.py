"""The throttle on a real server: limits over all workers, and the circuit breaker."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from worker.errors import LeaseLost, OracleQuotaSpent, OracleUnavailable
from worker.oracle import throttle as module
from worker.oracle.throttle import RedisThrottle, connect, end_pause, read_breaker

pytestmark = pytest.mark.services
URL, MODEL = "http://oracle/v1", "gpt"
CLOCK, SERVER_TIME = "clock", "redis.call('TIME')"


class Clock:
    """The time of the server's scripts and of this process: it moves when somebody sleeps, and then only."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._micros = 10**15
        self.sleep(0.0)

    def sleep(self, seconds: float) -> None:
        self._micros += round(seconds * 1e6)
        self._client.hset(CLOCK, mapping=dict(zip(("s", "us"), self.time(), strict=True)))

    def monotonic(self) -> float:
        return self._micros / 1e6

    def time(self) -> tuple[int, int]:
        """As Redis says it: seconds and microseconds."""
        return divmod(self._micros, 1_000_000)


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as made:
        yield made


@pytest.fixture(autouse=True)
def clock(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(client)
    for script in ("_ADMIT", "_ANSWERED", "_FAILED"):
        source = getattr(module, script)
        assert SERVER_TIME in source
        monkeypatch.setattr(
            module, script, source.replace(SERVER_TIME, f"redis.call('HMGET', '{CLOCK}', 's', 'us')")
        )
    monkeypatch.setattr(client, "time", made.time)
    monkeypatch.setattr(module, "time", made)
    return made


def make(client: redis.Redis, *, concurrency: int = 8, requests: int = 0, tokens: int = 0) -> RedisThrottle:
    return RedisThrottle(
        client,
        base_url=URL,
        model=MODEL,
        concurrency=concurrency,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
    )


def admitted(throttle: RedisThrottle, tokens: int = 1) -> bool:
    """Whether a request may go out at once."""

    def no_time() -> None:
        raise LeaseLost("waits")

    try:
        with throttle.admit(tokens, no_time):
            return True
    except (LeaseLost, OracleUnavailable):
        return False


def is_open(client: redis.Redis) -> bool:
    state = read_breaker(client, base_url=URL, model=MODEL)
    return state is None or state.is_open


def fail(throttle: RedisThrottle, times: int = module.BREAKER_FAILURES) -> None:
    for _ in range(times):
        throttle.failed(OracleUnavailable("http://oracle/v1 answered 500"))


def test_without_limits_everything_passes(client: redis.Redis) -> None:
    throttle = make(client)
    assert all(admitted(throttle, 100_000) for _ in range(50))


def test_requests_per_minute_hold_over_all_workers(client: redis.Redis, clock: Clock) -> None:
    workers = [make(client, requests=600) for _ in range(3)]
    # A tenth of a minute's share at once, then it trickles.
    assert sum(admitted(workers[number % 3]) for number in range(200)) == 60
    clock.sleep(1.0)
    assert sum(admitted(workers[number % 3]) for number in range(200)) == 9


def test_tokens_per_minute_hold_and_what_was_not_needed_comes_back(client: redis.Redis) -> None:
    throttle = make(client, tokens=6000)
    assert admitted(throttle, 500)
    assert not admitted(throttle, 500)
    throttle.answered({}, unused=450)
    assert admitted(throttle, 500)


def test_a_request_larger_than_the_bucket_leaves_a_debt(client: redis.Redis) -> None:
    throttle = make(client, tokens=6000)
    assert admitted(throttle, 3000)
    assert not admitted(throttle, 1)


def test_the_server_s_headers_lower_the_limits(client: redis.Redis) -> None:
    throttle = make(client)
    throttle.answered({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"})
    assert sum(admitted(throttle) for _ in range(30)) == 6
    throttle.answered({"x-ratelimit-limit-requests": "soon", "x-ratelimit-remaining-tokens": ""})


def test_what_the_server_says_remains_is_believed(client: redis.Redis) -> None:
    throttle = make(client, requests=6000)
    assert admitted(throttle)
    throttle.answered({"x-ratelimit-limit-requests": "6000", "x-ratelimit-remaining-requests": "0"})
    assert not admitted(throttle)


def test_retry_after_holds_every_worker(client: redis.Redis, clock: Clock) -> None:
    one, other = make(client), make(client)
    one.failed(OracleUnavailable("429", retry_after_s=0.4, limited=True))
    assert not admitted(other)
    clock.sleep(0.39)
    assert not admitted(other)
    clock.sleep(0.02)
    assert admitted(other)


def test_a_long_wait_is_the_ledger_s(client: redis.Redis) -> None:
    throttle = make(client)
    throttle.failed(OracleUnavailable("429", retry_after_s=300, limited=True))
    with pytest.raises(OracleUnavailable) as caught, throttle.admit(1, lambda: None):
        pass
    assert caught.value.limited
    assert caught.value.retry_after_s == pytest.approx(300)


def test_ten_failures_in_a_row_open_the_breaker_for_all(client: redis.Redis) -> None:
    one, other = make(client), make(client)
    fail(one, module.BREAKER_FAILURES - 1)
    one.answered({})
    fail(one, module.BREAKER_FAILURES - 1)
    assert not is_open(client)
    fail(other, 1)
    assert is_open(client)
    said = "isn't asked for a while: http://oracle/v1 answered 500"
    with pytest.raises(OracleUnavailable, match=said) as caught, one.admit(1, lambda: None):
        pass
    assert caught.value.limited
    assert caught.value.retry_after_s == pytest.approx(module.FIRST_PAUSE_S)
    state = read_breaker(client, base_url=URL, model=MODEL)
    assert state is not None
    assert state.is_open
    assert state.reason == "http://oracle/v1 answered 500"
    assert read_breaker(client, base_url=URL, model="another") is not None


def test_a_half_open_breaker_lets_one_probe_through(client: redis.Redis, clock: Clock) -> None:
    throttle = make(client)
    fail(throttle)
    clock.sleep(module.FIRST_PAUSE_S)
    assert admitted(throttle)
    assert not admitted(throttle)
    # The probe fails: closed for twice as long.
    fail(throttle, 1)
    state = read_breaker(client, base_url=URL, model=MODEL)
    assert state is not None
    assert state.retry_in_s == pytest.approx(2 * module.FIRST_PAUSE_S)
    clock.sleep(2 * module.FIRST_PAUSE_S)
    assert admitted(throttle)
    throttle.answered({})
    assert admitted(throttle)
    assert not is_open(client)


def test_who_says_that_the_server_is_mended_ends_the_pause_for_one_probe(client: redis.Redis) -> None:
    throttle = make(client)
    for failure in (OracleUnavailable("http://oracle/v1 answered 500"), OracleQuotaSpent("no quota")):
        for _ in range(module.BREAKER_FAILURES):
            throttle.failed(failure)
        assert is_open(client)
        end_pause(client, base_url=URL, model=MODEL)
        assert not is_open(client)
        assert admitted(throttle)
        assert not admitted(throttle)
    client.flushall()
    throttle.failed(OracleUnavailable("429", retry_after_s=20, limited=True))
    end_pause(client, base_url=URL, model=MODEL)
    assert not admitted(throttle)


def test_an_answer_that_was_under_way_neither_closes_the_breaker_nor_ends_a_wait(client: redis.Redis) -> None:
    throttle = make(client)
    throttle.failed(OracleQuotaSpent("insufficient_quota"))
    throttle.answered({})
    assert is_open(client)
    client.flushall()
    throttle.failed(OracleUnavailable("429", retry_after_s=20, limited=True))
    throttle.answered({})
    assert not admitted(throttle)


def test_the_one_that_goes_first_knows_it(client: redis.Redis, clock: Clock) -> None:
    throttle = make(client)
    with throttle.admit(1, lambda: None) as is_probe:
        assert not is_probe
    fail(throttle)
    clock.sleep(module.FIRST_PAUSE_S)
    with throttle.admit(1, lambda: None) as is_probe:
        assert is_probe
    throttle.answered({})
    with throttle.admit(1, lambda: None) as is_probe:
        assert not is_probe


def test_a_probe_that_meets_a_rate_limit_makes_room_for_another(client: redis.Redis, clock: Clock) -> None:
    throttle = make(client)
    fail(throttle)
    clock.sleep(module.FIRST_PAUSE_S)
    assert admitted(throttle)
    throttle.failed(OracleUnavailable("429", retry_after_s=0.1, limited=True))
    clock.sleep(0.1)
    assert admitted(throttle)


def test_a_probe_waits_for_its_bucket_like_others(
    client: redis.Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    throttle = make(client, requests=600)
    while admitted(throttle):
        pass
    fail(throttle)
    clock.sleep(0.05)
    # A request comes free in a ninth of a second, and it is the probe's.
    with throttle.admit(1, lambda: None) as is_probe:
        assert is_probe


def test_without_quota_the_breaker_opens_at_once(client: redis.Redis) -> None:
    throttle = make(client)
    throttle.failed(OracleQuotaSpent("insufficient_quota"))
    state = read_breaker(client, base_url=URL, model=MODEL)
    assert state is not None
    assert state.retry_in_s == pytest.approx(module.QUOTA_PAUSE_S)


def test_only_so_many_are_in_flight(client: redis.Redis) -> None:
    throttle = make(client, concurrency=3)
    now, peak = 0, 0
    lock = threading.Lock()
    together = threading.Barrier(3, timeout=120)

    def ask() -> None:
        nonlocal now, peak
        with throttle.admit(1, lambda: None):
            with lock:
                now += 1
                peak = max(peak, now)
            together.wait()
            with lock:
                now -= 1

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak == 3


def test_waiting_keeps_the_lease_alive_and_ends_with_it(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    throttle = make(client, concurrency=1)
    beats = []

    def heartbeat() -> None:
        beats.append(1)
        if len(beats) == 2:
            raise LeaseLost

    with throttle.admit(1, lambda: None), pytest.raises(LeaseLost), throttle.admit(1, heartbeat):
        pass
    # The slot of the one that gave up is free.
    assert admitted(throttle)


def test_without_redis_nothing_goes_out() -> None:
    away = connect("redis+socket:///nowhere/valkey.sock")
    throttle = make(away)
    said = "nothing is sent without its rate limits"
    with pytest.raises(OracleUnavailable, match=said), throttle.admit(1, lambda: None):
        pass
    throttle.answered({})
    throttle.failed(OracleUnavailable("500"))
    assert read_breaker(away, base_url=URL, model=MODEL) is None
    assert admitted(throttle) is False
