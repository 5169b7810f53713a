"""Faults among real processes, by their rows of the fault table: which they are and how often they are run.

The numbers together take about half an hour on two idle cores.
"""

from __future__ import annotations

from tests.faults.nemesis import brokers, databases, drills, hosts, kills, soak, storm
from tests.faults.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    # One to eight kills in a run: 100 together.
    Scenario("worker killed at a random time", kills.random_kills, full=23, row=1, sample=True),
    Scenario("message lost in the pop window", kills.lost_in_the_pop_window, full=20, row=2),
    Scenario("killed at a named point", kills.killed_at_a_named_point, full=20, row=3),
    Scenario("warm shutdown", kills.warm_shutdown, full=8, row=4),
    Scenario("cold shutdown", kills.cold_shutdown, full=9, row=5),
    Scenario("Redis crash", brokers.redis_crash, full=10, row=6, sample=True),
    Scenario("Redis away at the start", brokers.redis_away_at_the_start, full=4, row=6),
    Scenario("Redis wiped", brokers.redis_wiped, full=8, row=7),
    Scenario("connections to Redis cut", brokers.connections_cut, full=6, row=8),
    Scenario("network to Redis swallows everything", brokers.network_swallows_everything, full=8, row=8),
    Scenario("frozen worker revives", kills.frozen_worker_revives, full=10, row=11),
    Scenario(
        "PostgreSQL's sessions terminated, overlapping inserts", databases.sessions_terminated, full=8, row=13
    ),
    Scenario("SQLite, four writers killed", databases.four_writers_killed, full=6, row=14),
    Scenario("enqueue killed at a random row", databases.enqueue_killed, full=10, row=16),
    Scenario("poison review", hosts.poison_is_isolated, full=12, row=17),
    Scenario("OpenAI misbehaves", drills.oracle_misbehaves, full=60, row=18, sample=True),
    Scenario("Bulk is sent once whoever dies", drills.bulk_is_sent_once, full=30, row=19, sample=True),
    Scenario("three sweepers race", brokers.sweepers_race, full=6, row=20),
    Scenario("everything dies with the supervisor", kills.everything_dies_with_the_supervisor, full=4),
    Scenario("child killed under a lease that never ends", hosts.killed_child, full=6),
    Scenario("host without the base model", hosts.host_without_the_base_model, full=2),
    Scenario("device that stays broken", hosts.device_stays_broken, full=3),
    Scenario("device that is mended", hosts.mended_device, full=3),
    Scenario("children die while they load", hosts.children_die_while_they_load, full=3),
    Scenario("measuring frozen or killed", hosts.measuring_killed, full=4),
    Scenario("random subsets of faults", storm.random_faults, full=20),
    Scenario("everything mixed for a long time", soak.run, full=1, row=21),
)
