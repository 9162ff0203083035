"""Cross-entropy over rows of bf16 logits, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST, down, exp32, ordered, tanh32, up
from gptcli.runtime.compiled import compiled

loop = compiled(fastmath=FAST, uses=(bits.__file__,))

_ONE = np.float32(1)


@loop
def cross_entropy(
    logits: Any, targets: Any, ignored: Any, smoothing: Any, z_loss: Any, cap: Any, with_slope: Any
) -> tuple[float, float]:
    """The summed objective and the summed plain cross-entropy (nats) of logits [n,V]; with `with_slope` the logits
    become the objective's slopes. `cap` above zero: of cap·tanh(logit/cap)."""
    count, vocab = logits.shape
    exps = np.empty(vocab, np.float32)
    even = smoothing / np.float32(vocab)
    objective, plain = np.float64(0), np.float64(0)
    for i in range(count):
        target = targets[i]
        if target == ignored:
            if with_slope:
                for j in range(vocab):
                    logits[i, j] = np.uint16(0)
            continue
        top = np.int16(-0x7FFF)
        for j in range(vocab):
            top = max(top, ordered(logits[i, j]))
        most = up(np.uint16(ordered(np.uint16(top))))
        own = up(logits[i, target])
        total, mean = np.float32(0), np.float32(0)
        if cap > 0:
            most, own = cap * tanh32(most / cap), cap * tanh32(own / cap)
            for j in range(vocab):
                value = cap * tanh32(up(logits[i, j]) / cap)
                mean += value
                exps[j] = exp32(value - most)
                total += exps[j]
        else:
            for j in range(vocab):
                value = up(logits[i, j])
                mean += value
                exps[j] = exp32(value - most)
                total += exps[j]
        whole = most + np.log(total)
        mean /= np.float32(vocab)
        plain += whole - own
        objective += whole - (_ONE - smoothing) * own - smoothing * mean + z_loss * whole * whole
        if not with_slope:
            continue
        share = (_ONE + np.float32(2) * z_loss * whole) / total
        at_target = exps[target] * share - even - (_ONE - smoothing)
        if cap > 0:
            bend = tanh32(up(logits[i, target]) / cap)
            at_target *= _ONE - bend * bend
            for j in range(vocab):
                bend = tanh32(up(logits[i, j]) / cap)
                logits[i, j] = down((exps[j] * share - even) * (_ONE - bend * bend))
        else:
            for j in range(vocab):
                logits[i, j] = down(exps[j] * share - even)
        logits[i, target] = down(at_target)
    return objective, plain
