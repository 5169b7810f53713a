"""What each statistic means, in one sentence: the glossary of the command, of reports and of the live page."""

from __future__ import annotations

import re
from collections.abc import Iterable

TERMS = {
    "on": "for which reviews the figures are",
    "all": "all reviews that have both labels",
    "audit+cascade": "the whole job, estimated from an audit and from the escalated reviews",
    "agree": "the share of reviews with equal labels",
    "equal labels": "the share of reviews to which these raters give one and the same label",
    "kappa": "agreement beyond chance: 1 is always, 0 is as often as by chance (Cohen's; of three raters Fleiss')",
    "AC1": "as kappa, but steady where one label is rare (Gwet's)",
    "alpha": "as kappa, corrected for few reviews (Krippendorff's)",
    "bias p": "how likely such unequal label shares are by chance alone (McNemar's test): under 0.05 one rater leans "
    "to a label",
    "accuracy": "the share of reviews with gold's label",
    "gold": "the label that came with the file, or that a person gave as a correction",
    "macro F1": "precision and recall in one figure, the mean over the labels: rare labels count as much as others",
    "AUROC": "how often a review of a label scores higher for it than a review of another label: 0.5 is guessing",
    "RMS error": "how far scores are from the share that is right (root mean square, without what chance adds: "
    "0 is no more than chance)",
    "ECE (by chance)": "the mean gap between score and accuracy; in brackets what perfect scores show by chance",
    "agree on it": "of the times that a rater gave this label, how often the other gave it too (specific agreement)",
    "bias": "the share of reviews to which the first rater gives this label, less that of the second",
    "agreement on it": "of the times that a rater gave this label, how often the other gave it too",
    "share by": "of all reviews, how many get this label from the first rater, less those from the second",
    "score": "the probability that a rater gives to its own label",
    "calibration": "whether a score of 0.9 is right nine times in ten, a score of 0.6 six times, and so on",
    "ECE": "expected calibration error, the mean gap between score and accuracy: 0 is perfect",
    "root mean square gap": "as the mean gap, but large gaps count more, and what chance adds is taken off",
    "bin": "reviews with similar scores, counted together",
    "95 % interval": "if the measurement were made again and again, 95 of 100 such ranges would hold the true figure",
    "random": "a random sample of the job that people judged: the figures hold for the job if all of it is judged",
    "picked": "reviews that people chose to judge: they say nothing of the others",
    "audit": "a random sample of the job that adapter and oracle both label",
    "escalated": "reviews that the oracle decides: the adapter was unsure, or the language is another one",
    "trusted ones": "reviews that were left to the adapter, which was sure enough",
    "certified": "at least this share of the final labels is the oracle's, with the chance that is named beside it; "
    "the cut is the rank by score after which the oracle decides",
    "undefined": "can't be computed from these reviews; the reason is named beside it",
}
ONLY_IN_COMMANDS = (
    "on",
    "all",
    "random",
    "picked",
    "audit+cascade",
    "agree",
    "bias p",
    "RMS error",
    "ECE (by chance)",
    "agree on it",
    "bias",
)
"""Names of columns of `loracle agreement`; on a page they would be found in words that mean something else."""


def explained(terms: Iterable[str]) -> list[tuple[str, str]]:
    """(term, what it means) of those that need a word, in the order of the glossary."""
    wanted = set(terms)
    return [(term, meaning) for term, meaning in TERMS.items() if term in wanted]


def mentioned(text: str) -> list[tuple[str, str]]:
    """The terms that a page's text holds, with what they mean."""
    plain = text.replace("\u00a0", " ")
    return explained(
        term
        for term in TERMS
        if term not in ONLY_IN_COMMANDS and re.search(rf"\b{re.escape(term)}(s|ed)?\b", plain, re.IGNORECASE)
    )
