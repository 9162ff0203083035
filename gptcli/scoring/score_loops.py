"""What a row of bf16 logits makes of its target, in one pass while the row is in the cache; compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, exp32, tanh32, up
from gptcli.runtime.compiled import compiled

loop = compiled(fastmath=FAST, uses=(bits.__file__,))

_NONE, _ONE = np.int32(0), np.int32(1)


@loop
def score(logits: Any, targets: Any, cap: Any, nats: Any, ranks: Any, confidence: Any) -> None:
    """Of each target [n] in logits [n,V] (bits): its negative log-likelihood, its rank (of equal logits the first id
    is ahead) and the probability of the likeliest. `cap` above zero: of cap·tanh(logit/cap)."""
    count, vocab = logits.shape
    values = np.empty(vocab, np.float32)
    for i in range(count):
        row, target = logits[i], targets[i]
        if cap > 0:
            for j in range(vocab):
                values[j] = cap * tanh32(up(row[j]) / cap)
        else:
            for j in range(vocab):
                values[j] = up(row[j])
        most, own, ahead = values[0], values[target], _NONE
        for j in range(vocab):
            most = max(most, values[j])
            ahead += _ONE if values[j] > own else _NONE
        before = values[:target]
        for j in range(target):
            ahead += _ONE if before[j] == own else _NONE
        total = np.float32(0)
        for j in range(vocab):
            total += exp32(values[j] - most)
        nats[i] = most + np.log(total) - own
        ranks[i] = ahead
        confidence[i] = np.float32(1) / total
