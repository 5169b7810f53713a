"""Every error that Loracle raises on purpose.

Three families under one root: `Invalid` is wrong until a person changes something, `Transient` may be gone at
the next try, `HostUnfit` is true of one host alone. The docstring of a class is its default message.
"""


class LoracleError(Exception):
    """Something went wrong in Loracle."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Invalid(LoracleError):
    """The input or the set-up is wrong and stays wrong until somebody mends it."""

    exit_code = 2


class Transient(LoracleError):
    """The same call may succeed later."""


class HostUnfit(LoracleError):
    """This host isn't set up for the job; another one may be."""

    exit_code = 2


# Set-up ----------------------------------------------------------------------------------------------------


class SettingsInvalid(Invalid):
    """A setting has a value that is not allowed."""


class DatabaseUnreachable(Transient):
    """The database can't be reached."""

    exit_code = 2


class DatabaseBusy(Transient):
    """The database can't take this now: it stayed locked, or its disk is full."""


class SchemaMismatch(Invalid):
    """The database's schema is not the one this version of Loracle works with."""


class BackupImpossible(Invalid):
    """The backup can't be made."""


class DatabaseUnsound(LoracleError):
    """The database breaks a promise that it should keep."""


class BrokerUnreachable(Transient):
    """The Redis server can't be reached."""

    exit_code = 2


class DataDirectoryBusy(Invalid):
    """Another embedded worker already uses this data directory: the one with this `pid`."""

    def __init__(self, message: str, *, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


# Review files ----------------------------------------------------------------------------------------------


class FileUnreadable(Invalid):
    """The review file can't be read."""


class QueryEmpty(FileUnreadable):
    """The query gives no rows. After a night without new rows that is no mistake."""

    exit_code = 0


class ColumnMissing(Invalid):
    """The review file has no such column. `names` are those that it has, as far as they are known."""

    names: tuple[str, ...] = ()


class OptionInvalid(Invalid):
    """An option has a value that is not allowed."""


class TooManyRejects(LoracleError):
    """More rows of the review file are unreadable than --max-rejects allows."""


# Jobs ------------------------------------------------------------------------------------------------------


class JobUnknown(Invalid):
    """There is no such job."""


class JobStateInvalid(Invalid):
    """The job is in a state in which this can't be done."""


class CorrectionInvalid(Invalid):
    """A correction can't be taken over."""


class ReportImpossible(Invalid):
    """The report of the job can't be drawn or written."""


class LeaseLost(Transient):
    """Another worker holds the lease of this batch now: unsaved work is dropped."""


# Adapters and scoring --------------------------------------------------------------------------------------


class AdapterInvalid(Invalid):
    """The adapter can't be used."""


class AdapterUnknown(AdapterInvalid):
    """There is no such adapter."""


class ManifestMissing(AdapterInvalid):
    """The adapter directory has no manifest.json."""


class AdapterChanged(AdapterInvalid):
    """A file of the adapter differs from what its manifest says."""


class HeadMissing(AdapterInvalid):
    """The adapter's weights lack the classification head."""


class AdapterUnsaved(Invalid):
    """The adapter can't be written to disk."""


class TrainingInvalid(Invalid):
    """These training data or options can't give an adapter."""


class BaseNotFound(HostUnfit):
    """The base model can't be found on this machine or its hub."""


class BaseMismatch(HostUnfit):
    """The base model's weights on this host are not those the adapter was trained on."""


class BaseUnloadable(HostUnfit):
    """The base model can't be loaded with the files and libraries of this host."""


class ProbesDiffer(HostUnfit):
    """The adapter gives other scores here than it did when it was made."""


class CacheUnusable(HostUnfit):
    """The adapter's files can't be kept in this host's cache."""


class DeviceUnavailable(HostUnfit):
    """The requested device does not exist on this host."""


class BackendUnfit(HostUnfit):
    """The requested back end can't score with this adapter on this host."""


class DeviceBroken(Transient):
    """The device failed in a way that only a new process can mend."""


# The oracle ------------------------------------------------------------------------------------------------


class OracleInvalid(Invalid):
    """The oracle can't be asked: its key, address, model or route is wrong, or it refuses every request."""


class OracleUnfit(HostUnfit):
    """This host isn't set up to ask the job's oracle."""


class BulkTooLarge(Invalid):
    """The Batch API takes no Bulk of this size: it has to be halved."""


class OracleUnavailable(Transient):
    """The oracle doesn't answer now. `retry_after_s` is how long it asked to be left alone, where it said so.

    `limited`: it isn't this request's fault (a rate limit, an open circuit breaker).
    """

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None, limited: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limited = limited


class OracleQuotaSpent(OracleUnavailable):
    """The account behind OPENAI_API_KEY has no quota or credit left: asking again doesn't help until it has."""


class BudgetSpent(Transient):
    """The next request could cost more than is left of --max-cost (of job `job_id`) or LORACLE_MAX_COST.

    `final` unless calls under way may turn out cheaper than what was set aside for them.
    """

    def __init__(self, message: str = "", *, job_id: int | None = None, final: bool = True) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.final = final


# Single reviews --------------------------------------------------------------------------------------------


class ReviewUnscorable(LoracleError):
    """A single review can't be scored."""
