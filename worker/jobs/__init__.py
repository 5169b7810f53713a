"""The stories of a job: enqueued, scored, asked about, corrected, deleted."""
