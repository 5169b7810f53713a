"""Which operations there are and how often they are tried."""

from __future__ import annotations

from tests.faults.operations import brokers, clocks, databases, disks, versions
from tests.faults.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("PostgreSQL shut down at once", databases.postgres_restarted, full=10, row=12, sample=True),
    Scenario(
        "PostgreSQL fails over to the wrong database", databases.failed_over_to_the_wrong_database, full=6
    ),
    Scenario("an older backup is restored in the middle of a job", databases.backup_restored, full=8),
    Scenario("Redis asks for another password for a while", brokers.password_changed, full=6),
    Scenario("Redis full", brokers.redis_full, full=6, row=9),
    Scenario("visibility shorter than a task", brokers.handed_out_twice, full=4, row=10),
    Scenario("TLS to Redis", brokers.tls, full=4),
    Scenario("disk full", disks.disk_full, full=6, row=15),
    Scenario("a host's clock is wrong by an hour", clocks.clock_is_wrong, full=8),
    Scenario("two versions at once", versions.two_versions_at_once, full=8),
    Scenario("rolling restart of workers", versions.rolling_restart, full=8),
    Scenario("a later version upgrades the schema", versions.later_schema, full=4),
)
