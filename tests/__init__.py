"""Tests, and what they share."""

from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "worker" / "data" / "sample_reviews.csv"
