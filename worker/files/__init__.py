"""Review files in, one record at a time, and results out."""

from worker.files.columns import Columns
from worker.files.gold import GoldColumn
from worker.files.records import FORMATS, ReadOptions
from worker.files.results import RESULT_FORMATS, write_results
from worker.files.review_file import ReviewFile, open_query, open_reviews, sample

__all__ = [
    "FORMATS", "RESULT_FORMATS", "Columns", "GoldColumn", "ReadOptions", "ReviewFile", "open_query",
    "open_reviews", "sample", "write_results",
]  # fmt: skip
