"""How far raters agree: counts in, statistics with their intervals out. Pure: no services, no SQL, no files.

This module has what training needs and imports the standard library only: `agreement`, `Agreement`, `wilson`,
`Z_95`. The others need numpy and scipy; import what you want from them:

- `pairs.pair_statistics(table)`: two raters. Observed agreement, kappa, AC1, alpha, each label's agreement and
  bias, a test of the margins; of reviews like these, or of a job of N they are a random sample of.
- `stratified.cascade_statistics(escalated, trusted, audited)`: a cascade with an audit, where the oracle saw all
  unsure reviews and a sample of the others.
- `many.many_statistics(patterns, raters)`: Fleiss' kappa of three and more raters.
- `gold.gold_statistics(gold, given)`: labels against gold; with scores, also AUROC and
  `calibrated.calibration_error`.
- `drift.drift(first, second)`: whether two jobs or periods differ on reviews of like score.
- `slices.by_length(lengths)`, `slices.by_score(scores)`: tenths of the reviews, with edges that a query can use.

Which one: if both raters labelled all reviews, or a uniform sample of them, `pairs`; if the oracle was asked
because a score was low, never that table alone, but `stratified`. Every result is frozen, has `as_json()`, and
says None (null) where a figure is undefined: never NaN, never a number by convention. An interval is a 95 % one.
What a formula is from stands where it is computed.
"""

from worker.agreement.intervals import Z_95, Agreement, agreement, wilson

__all__ = ["Z_95", "Agreement", "agreement", "wilson"]
