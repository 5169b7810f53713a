"""What the terms of agreement mean, a line each, for people who see them in a table."""

from __future__ import annotations

from collections.abc import Iterable

TERMS = {
    "on": "for which reviews: all; audit, a random sample of the job; escalated, those that the adapter was unsure "
    "of; audit+cascade, the whole job estimated from both",
    "agree": "the share of reviews with equal labels",
    "equal labels": "the share of reviews to which these raters give one and the same label",
    "kappa": "agreement beyond chance: 1 is always, 0 is as often as by chance (Cohen's; of three raters Fleiss')",
    "AC1": "as kappa, but steady where one label is rare (Gwet's)",
    "alpha": "as kappa, corrected for few reviews (Krippendorff's)",
    "bias p": "how likely such unequal label shares are by chance alone: under 0.05 one rater leans to a label",
    "accuracy": "the share of reviews with gold's label",
    "macro F1": "precision and recall in one figure, the mean over the labels: rare labels count as much as others",
    "AUROC": "how often a review of a label scores higher for it than a review of another label: 0.5 is guessing",
    "RMS error": "how far scores are from the share that is right (root mean square, without what chance adds)",
    "ECE (by chance)": "the mean gap between score and accuracy; in brackets what perfect scores show by chance",
    "agree on it": "of the times that a rater gave this label, how often the other gave it too (specific agreement)",
    "bias": "the share of reviews to which the first rater gives this label, less that of the second",
}


def explained(terms: Iterable[str]) -> list[tuple[str, str]]:
    """(term, what it means) of those that need a word, in the order of the tables."""
    wanted = set(terms)
    return [(term, meaning) for term, meaning in TERMS.items() if term in wanted]
