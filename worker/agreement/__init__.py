"""How far raters agree: counts in, statistics with their intervals out. Pure: no services, no SQL, no files.

- `pairs.pair_statistics`: two raters. Observed agreement, kappa, AC1, alpha, each label's agreement and bias, a test
  of the margins; of reviews like these, or of a job of N they are a random sample of.
- `cascade.cascade_statistics`: a cascade with an audit, where the oracle saw all unsure reviews and a sample of the
  others.
- `pairs.many_statistics`: Fleiss' kappa and Gwet's AC1 of three and more raters.
- `gold.gold_statistics`: labels against gold; with scores, also AUROC and `calibration.calibration_error`.
- `label_errors.label_errors`: the chance of each gold label to be wrong.
- `drift.drift`: whether two jobs or periods differ on reviews of like score.
- `measure.measure`: all of these that a job's labels allow, each a `Measurement`.

Which one: if both raters labelled all reviews, or a uniform sample of them, `pairs`; if the oracle was asked because
a score was low, never that table alone, but `cascade`. Every result is frozen, and says None where a figure is
undefined: never NaN, never a number by convention. An interval is a 95 % one. The source of a formula is named where
it is computed.
"""

from worker.agreement.intervals import Z_95, wilson

__all__ = ["Z_95", "wilson"]
