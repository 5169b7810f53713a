"""Every metric: its name with its unit, its labels, and what it says.

Names of OpenTelemetry's conventions (messaging, gen_ai) are taken where there is one. Figures of the ledger are
gauges: a deleted job takes its reviews along. Workers count from zero each time that `loracle worker` starts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, what it says, and the names of its labels."""

    name: str
    says: str
    labels: tuple[str, ...] = ()


# Of the ledger.
JOBS = Metric("loracle_jobs", "Jobs by state.", ("state",))
OPEN_BATCHES = Metric(
    "loracle_open_batches", "Batches that aren't over, by lane and state.", ("lane", "state")
)
OLDEST_BATCH = Metric(
    "loracle_oldest_batch_age_seconds", "Age of the oldest batch that waits or is worked on.", ("lane",)
)
STILL = Metric(
    "loracle_no_progress_seconds",
    "How long no batch of the lane was finished although there is one to do; 0 where there is none.",
    ("lane",),
)
EXPIRED_LEASES = Metric(
    "loracle_expired_leases",
    "Batches whose worker is gone or hangs, and that nobody has taken back yet.",
    ("lane",),
)
RECENT_REVIEWS = Metric(
    "loracle_recent_reviews",
    "Records of the jobs that run or ended within a day (the 50 newest): read, rejected, failed; of the last two "
    "100,000 a job at most are counted.",
    ("state",),
)
RECENT_REJECTS = Metric("loracle_recent_rejects", "The rejected ones of them by kind.", ("kind",))
RECENT_REQUESTS = Metric(
    "loracle_recent_requests",
    "Requests of the same jobs to the oracle that wait, or gave no label, by state.",
    ("state",),
)
LABELS = Metric(
    "loracle_labels", "Final labels of the jobs that are done, by label and source.", ("label", "source")
)
AGREEMENT = Metric(
    "loracle_agreement_ratio",
    "Share of equal labels of two raters: of the last job that has it, and the mean of up to ten before it.",
    ("raters", "which"),
)
COST = Metric(
    "loracle_cost_dollars", "What the oracle cost so far, with what is set aside for calls under way."
)
BUDGET_LEFT = Metric("loracle_budget_left_dollars", "What LORACLE_MAX_COST still allows; absent without it.")
JOB_BUDGET_LEFT = Metric(
    "loracle_job_budget_left_ratio", "The smallest share of its --max-cost that a running job has left."
)
WORKER_FAULTS = Metric(
    "loracle_worker_faults",
    "Workers that can't load an adapter or ask an oracle, or whose device breaks, in the last hour.",
    ("worker", "kind"),
)

# Of one host's workers.
SCORED = Metric(
    "loracle_reviews_scored_total", "Reviews scored, by lane, scorer and label.", ("lane", "scorer", "label")
)
FAILURES = Metric(
    "loracle_failures_total", "Batches and reviews that failed here, by lane and kind.", ("lane", "kind")
)
STAGE = Metric(
    "loracle_stage_duration_seconds", "Seconds of a batch in the stages load and score.", ("lane", "stage")
)
BATCH = Metric(
    "messaging_process_duration_seconds",
    "Seconds from a message to the end of its batch, with the ledger's work.",
    ("messaging_destination_name",),
)
SWEPT = Metric(
    "loracle_swept_total", "Batches that the sweeper took back (requeued), halved, gave up or published again.",
    ("lane", "what"),
)  # fmt: skip
TOKENS = Metric(
    "gen_ai_client_token_usage_total", "Tokens that the oracle was paid for.", ("gen_ai_response_model",)
)
PAID = Metric("loracle_oracle_cost_dollars_total", "What the oracle was paid by this host.")
BREAKER = Metric("loracle_oracle_breaker_open", "1 while the circuit breaker keeps this worker from asking.")
GPU_MEMORY_USED = Metric("loracle_gpu_memory_used_bytes", "Memory in use of a GPU.", ("gpu",))
GPU_MEMORY = Metric("loracle_gpu_memory_bytes", "Memory of a GPU.", ("gpu",))
GPU_USE = Metric("loracle_gpu_utilization_ratio", "Share of time in which a GPU computed.", ("gpu",))

ALL = tuple(one for one in globals().values() if isinstance(one, Metric))
