"""A queue that crashes, is wiped, or can't be reached for a while; and several that sweep it at once."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.nemesis.kills import BUSY_MACHINE_S, LEASE_S, SHORT_LEASE, SLOW
from tests.faults.nemesis.stage import Stage, freeze, mains, some_time, stage
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import kill_all, reviews, scoring_children

RESUMES_WITHIN_S = 10.0
LONGEST_HOLE_S = 40.0
"""Longer than the broker's clients wait for an answer, which is 30 seconds."""


def redis_crash(seed: int, folder: Path) -> Struck:
    """Valkey is killed in the middle of the job and comes back some seconds later with what its file holds."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(400))
        site.start()
        site.until(lambda: one.labels() >= 20)
        some_time(one.chance, 1.0)
        _clients_are_there(one)
        one.broker.crash()
        some_time(one.chance, 5.0)
        if not one.open_jobs():
            raise DidNotStrikeError
        one.broker.start()
        recovery_s = one.until_label()
        assert recovery_s < RESUMES_WITHIN_S + BUSY_MACHINE_S
        one.end(job_id)
        return Struck(recovery_s)


def redis_away_at_the_start(seed: int, folder: Path) -> Struck:
    """There is no Valkey when the worker starts; it comes later."""
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site = one.site
        one.broker.crash()
        job_id = site.enqueue(reviews(100))
        site.start()
        site.until(lambda: "whether the server is up; the worker keeps trying." in site.said)
        some_time(one.chance, 5.0)
        assert not one.labels()
        one.broker.start()
        recovery_s = one.until_label()
        assert recovery_s < RESUMES_WITHIN_S + BUSY_MACHINE_S
        site.wait(job_id)
        site.until(lambda: "Redis is back." in site.said)
        site.assert_each_label_once(job_id)
        one.end()
        return Struck(recovery_s)


def redis_wiped(seed: int, folder: Path) -> Struck:
    """FLUSHALL with messages waiting and handed out."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(400))
        site.start()
        site.until(lambda: one.labels() >= 20)
        some_time(one.chance, 2.0)
        lost = sum(one.waiting().values())
        with one.broker.client() as client:
            client.flushall()
        if not lost or not one.open_jobs():
            raise DidNotStrikeError
        recovery_s = one.until_label()
        one.end(job_id)
        return Struck(recovery_s)


def connections_cut(seed: int, folder: Path) -> Struck:
    """Every connection to the queue is cut again and again, at random moments."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(400))
        site.start()
        site.until(lambda: one.labels() >= 20)
        cut, longest = 0, 0.0
        for _ in range(4):
            some_time(one.chance, 1.5)
            if one.open_jobs():
                _clients_are_there(one)
                cut += cut_connections(one)
                longest = max(longest, one.until_label())
        if not cut:
            raise DidNotStrikeError
        assert longest < RESUMES_WITHIN_S + BUSY_MACHINE_S
        one.end(job_id)
        return Struck(longest)


def cut_connections(one: Stage) -> int:
    """CLIENT KILL for all; how many there were."""
    with one.broker.client() as client:
        return int(client.client_kill_filter(_type="normal", skipme=True)) + int(
            client.client_kill_filter(_type="pubsub")
        )


def network_swallows_everything(seed: int, folder: Path) -> Struck:
    """For some seconds, or longer than a client waits, nothing passes to the queue or back; no connection ends."""
    with stage(seed, folder, postgres=seed % 2 == 1, proxied=True, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(400))
        site.start()
        site.until(lambda: one.labels() >= 20)
        some_time(one.chance, 1.0)
        hole_s = one.chance.choice((3.0, 10.0, LONGEST_HOLE_S)) * one.chance.uniform(0.5, 1.0)
        before = one.hole.held_back
        one.hole.close()
        time.sleep(hole_s)
        one.hole.open()
        if one.hole.held_back == before or not one.open_jobs():
            raise DidNotStrikeError
        recovery_s = one.until_label()
        one.end(job_id)
        return Struck(recovery_s)


def sweepers_race(seed: int, folder: Path) -> Struck:
    """Three workers' sweepers wake at once to the same lease that ran out and the same lost messages."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables={**SHORT_LEASE, **SLOW}) as one:
        site = one.site
        job_id = site.enqueue(reviews(300))
        workers = [site.start(LORACLE_SWEEP_INTERVAL_S="0.05") for _ in range(4)]
        site.until(lambda: all(scoring_children(worker.pid) for worker in workers))
        site.until(lambda: one.running())
        some_time(one.chance, 1.0)
        kill_all(workers[0].pid)
        workers[0].wait()
        held = one.running()
        sweeping = [main for worker in workers[1:] for main in mains(worker)]
        freeze(sweeping)
        with one.broker.client() as client:
            client.flushall()
        time.sleep(LEASE_S)
        if not held or len(sweeping) != 3 or not one.open_jobs():
            raise DidNotStrikeError
        for main in sweeping:
            main.resume()
        recovery_s = one.until_label()
        one.end(job_id)
        return Struck(recovery_s)


def _clients_are_there(one: Stage) -> None:
    with one.broker.client() as client:
        if len(client.client_list()) < 2:
            raise DidNotStrikeError
