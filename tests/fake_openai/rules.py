"""What the fake thinks of a text: it counts words. No model, no meaning."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

GOOD = """
    good great love loved excellent wonderful perfect best amazing nice happy works recommend
    fantastic enjoyed beautiful brilliant superb delightful fun pleased favourite favorite
    comfortable solid reliable easy glad
    """
BAD = """
    bad terrible awful worst waste broke broken boring poor disappointed disappointing refund hate
    hated horrible useless dull stupid cheap failed wrong annoying slow noisy ugly sad mess
    unwatchable stopped scratched
    """
TURNS = frozenset(("not", "never", "no", "hardly", "isn't", "wasn't", "don't", "didn't", "doesn't"))


def rule_label(text: str, labels: Sequence[str]) -> tuple[str, float]:
    """A label and its probability: good words less bad ones, turned by a "not" before; a hash decides a tie."""
    good, bad = GOOD.split(), BAD.split()
    total = 0
    turned = False
    for word in re.findall(r"[a-z']+", text.lower()):
        if word in TURNS:
            turned = True
            continue
        value = (word in good) - (word in bad)
        total += -value if turned else value
        turned = False
    sure = min(0.98, 0.6 + 0.1 * abs(total))
    positive = [label for label in labels if "pos" in label.lower()]
    negative = [label for label in labels if "neg" in label.lower()]
    if total and positive and negative:
        return (positive if total > 0 else negative)[0], sure
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return labels[int.from_bytes(digest[:4]) % len(labels)], 0.55
