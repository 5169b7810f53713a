"""Two versions of Loracle at once: both work on one job, and one whose schema is another refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.faults.nemesis.kills import SLOW
from tests.faults.nemesis.stage import RECORDS, ROOT, Stage, some_time, stage
from tests.faults.operations.commands import refused, run
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import held, reviews, stop

VERSION = "99.0.0"
SAYS_ITS_VERSION = """
if IS_CHILD:
    import worker
    with open(os.path.join(HOME, "tmp", f"version-{os.getpid()}"), "w") as file:
        file.write(worker.__version__)
"""
SECOND = '''"""A later schema."""

import sqlalchemy
from alembic import op

revision, down_revision = "second", "initial"
branch_labels = depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sqlalchemy.Column("of_a_later_version", sqlalchemy.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "of_a_later_version")
'''


def other_version(folder: Path, *, schema: bool = False) -> Mapping[str, str]:
    """The variables with which commands run in a copy of Loracle that has another version, other defaults, and with
    `schema` a later schema."""
    copy = folder / "other"
    leave_out = shutil.ignore_patterns("__pycache__", "data", "results")
    for package in ("worker", "migrations"):
        shutil.copytree(ROOT / package, copy / package, ignore=leave_out)
    (copy / "worker" / "data").symlink_to(ROOT / "worker" / "data")
    for module in ("tests/__init__.py", "tests/faults/__init__.py", "tests/faults/history.py"):
        (copy / module).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / module, copy / module)
    _replace(copy / "worker" / "__init__.py", "__version__ = ", f'__version__ = "{VERSION}"  # ')
    _replace(
        copy / "worker" / "settings.py",
        "publish_window: Count = Field(64",
        "publish_window: Count = Field(16",
    )
    _replace(copy / "worker" / "settings.py", "batch_size: int = Field(256", "batch_size: int = Field(128")
    if schema:
        _replace(copy / "worker" / "store" / "schema.py", 'HEAD = "initial"', 'HEAD = "second"')
        (copy / "migrations" / "versions" / "second.py").write_text(SECOND)
    (copy / "first").mkdir()
    (copy / "first" / "sitecustomize.py").write_text(RECORDS.format(root=str(copy)) + SAYS_ITS_VERSION)
    path = os.pathsep.join([str(copy / "first"), str(copy)])
    # Else the working directory comes first.
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def two_versions_at_once(seed: int, folder: Path) -> Struck:
    """Workers of two versions share a job; one of them is stopped or killed, and the other one goes on."""
    variables = {**SLOW, "LORACLE_LEASE_S": "5"}
    with stage(seed, folder, postgres=seed % 2 == 1, code=SAYS_ITS_VERSION, variables=variables) as one:
        site = one.site
        job_id = site.enqueue(held(reviews(300), 1))
        workers = [site.start(**other_version(folder)), site.start()]
        # Who has the first batch waits, the other one has all the others.
        site.until(lambda: len(_versions(one)) == 2)
        second = site.enqueue(reviews(200, 1000))
        site.gate.touch()
        site.until(lambda: len(_claimers(one)) == 2)
        some_time(one.chance, 2.0)
        if not one.open_jobs():
            raise DidNotStrikeError
        first = workers[seed // 2 % 2]
        if seed // 4 % 2:
            one.kill(first)
        else:
            assert stop(first) == 0
        recovery_s = one.until_label()
        for each in (job_id, second):
            site.wait(each)
            site.assert_each_label_once(each)
        _forget(one)
        one.end()
        return Struck(recovery_s)


def rolling_restart(seed: int, folder: Path) -> Struck:
    """Two workers are replaced by those of a later version, one after the other, while jobs come in. Each finishes
    what it holds: no batch is claimed a second time."""
    with stage(seed, folder, postgres=seed % 2 == 1, code=SAYS_ITS_VERSION, variables=SLOW) as one:
        site = one.site
        jobs = [site.enqueue(reviews(700))]
        workers = [site.start_ready(), site.start_ready()]
        later = other_version(folder)
        for number, worker in enumerate(workers, start=1):
            jobs.append(site.enqueue(reviews(700, 1000 * number)))
            site.until(one.running)
            some_time(one.chance, 1.0)
            if not one.running():
                raise DidNotStrikeError
            assert stop(worker) == 0
            site.start_ready(**later)
        jobs.append(site.enqueue(reviews(100, 9000)))
        for each in jobs:
            site.wait(each)
            site.assert_each_label_once(each)
        assert one.rows("SELECT DISTINCT attempts FROM batches") == [(1,)]
        assert VERSION in _claimers(one)
        _forget(one)
        one.end()
        return Struck()


def later_schema(seed: int, folder: Path) -> Struck:
    """A worker of a later version is refused until the schema is its own; then the earlier one's commands are, and
    the earlier worker that runs goes on beside the later one."""
    with stage(seed, folder, postgres=seed % 2 == 1, code=SAYS_ITS_VERSION, variables=SLOW) as one:
        site = one.site
        # A configured database is never changed behind the back of whoever runs it.
        later = {**other_version(folder, schema=True), "DATABASE_URL": one.database_url}
        texts = reviews(200)
        row_no = one.chance.randrange(20, 120)
        job_id = site.enqueue(held(texts, row_no))
        earlier = site.start()
        site.wait_for_labels(job_id, (row_no - 1) // 10 * 10)
        said = refused(site, "worker", **later)
        assert "is at revision initial, this Loracle needs second: run `loracle db upgrade`" in said, said
        code, said = run(site, "db", "upgrade", **later)
        assert code == 0, said
        assert one.rows("SELECT version_num FROM alembic_version") == [("second",)]
        for command in (("worker",), ("status", str(job_id))):
            said = refused(site, *command)
            assert "was upgraded by a newer Loracle. Install that version or a later one." in said, said
        site.start_ready(**later)
        site.until(lambda: VERSION in _claimers(one))
        site.gate.touch()
        recovery_s = one.until_label()
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        assert earlier.poll() is None
        assert len(_claimers(one)) == 2
        _forget(one)
        one.end()
        return Struck(recovery_s)


def _versions(one: Stage) -> set[str]:
    return {path.read_text() for path in (one.site.home / "tmp").glob("version-*")}


def _claimers(one: Stage) -> set[str]:
    """The versions that have claimed a batch."""
    pids = {event.pid for event in one.history() if "batch" in event.found}
    paths = [one.site.home / "tmp" / f"version-{pid}" for pid in pids]
    return {path.read_text() for path in paths if path.exists()}


def _forget(one: Stage) -> None:
    for path in (one.site.home / "tmp").glob("version-*"):
        path.unlink()


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old}"
    path.write_text(text.replace(old, new))
