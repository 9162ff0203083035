"""Which way a figure is better: the one table of it."""

from __future__ import annotations

import re

# Words of figures' names, whole ones; of two that a name holds, LOWER's counts: an accuracy_error is an error.
LOWER = (
    "loss",
    "perplexity",
    "bits_per_byte",
    "bits_per_token",
    "ece",
    "mce",
    "brier",
    "error",
    "invalid",
    "unfinished",
    "contaminated",
    "unmatched",
    "ter",
    "wer",
    "cer",
)
HIGHER = (
    "acc",
    "accuracy",
    "top5",
    "exact",
    "em",
    "match",
    "contains",
    "numeric",
    "regex",
    "precision",
    "recall",
    "f1",
    "mcc",
    "kappa",
    "auc",
    "bleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "rougel",
    "rougelsum",
    "margin",
    "pass",
)


def higher_is_better(figure: str) -> bool | None:
    """Whether more of a figure (`arc_easy.acc`, `chat_loss`) is better; None for what is neither, such as counts.

    Of `TASK.FIGURE` the task's name does not count.
    """
    words = f"_{'_'.join(re.findall(r'[a-z0-9]+', figure.partition('.')[2].lower() or figure.lower()))}_"
    if any(f"_{name}_" in words for name in LOWER):
        return False
    return True if any(f"_{name}_" in words for name in HIGHER) else None
