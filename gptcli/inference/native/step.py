"""One forward pass over a few tokens of several sequences, compiled, shared by threads that come and go.

Tokens are packed: token i belongs to sequence slots[i] and stands at positions[i]; tokens of one sequence are
neighbours ("runs"). All threads walk through the same list of pieces of work. Each piece is claimed by whoever comes
first, and the next list is begun when all pieces of the one before are done, so that a thread that is late, or that
the system has taken off its core, holds nobody up who isn't waiting for its one piece. What a piece gives does not
depend on who computes it, nor on the other tokens.

Shapes: M tokens, H hidden_size, N heads, K key/value heads of D (kept as P, D rounded up to 16), F intermediate_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gptcli.inference.native import layout, vectors
from gptcli.inference.native import rows as arithmetic
from gptcli.inference.native.layout import (
    ACTIVATION,
    CAPACITY,
    COLUMNS,
    DOWN,
    EPSILON,
    GATE,
    HEADS,
    HIDDEN,
    JOINING,
    KEY_GAIN,
    KV_HEADS,
    LAYERS,
    LISTS,
    MIXED,
    MIXING,
    NARROWING,
    OUT,
    OUTPUT,
    PADDED,
    PARTS,
    QUERY,
    QUERY_GAIN,
    SIZE,
    SLOTS,
    SPINS,
    SWIGLU,
    UP,
    WIDENING,
    WIDTH,
)
from gptcli.inference.native.rows import activate, mix, multiply, norm_row, normed, softmax, tiles_float32, turned
from gptcli.inference.native.rows import function as _function
from gptcli.inference.native.vectors import CACHE_LINE, count_up, look, step_aside
from gptcli.models.ops import bits
from gptcli.models.ops.bits import FAST
from gptcli.runtime.compiled import compiled


@_function
def _place_heads(
    gain: Any, values: Any, shape: Any, numbers: Any, head: Any, tokens: Any, positions: Any, places: Any, buffers: Any
) -> None:
    """Norm and turn one key/value head's queries and keys of a run; keys and values go to the cache."""
    size, padded, group = shape[SIZE], shape[PADDED], shape[HEADS] // shape[KV_HEADS]
    joined, queries, keys, cached, cos, sin, spare = buffers
    scale = np.float32(1) / np.sqrt(np.float32(size))
    for token in range(tokens[0], tokens[1]):
        line, at = joined[token], positions[token]
        for part in range(group + 2):
            start = (head * group + part) if part < group else shape[HEADS] + (part - group) * shape[KV_HEADS] + head
            x = line[start * size : (start + 1) * size]
            if part < group:
                out, norm = queries[head, token * group + part], gain[QUERY_GAIN]
            else:
                place = places + at * padded
                out = keys[place : place + padded] if part == group else cached[place : place + padded]
                norm = gain[KEY_GAIN] if part == group else -1
            if norm >= 0:
                normed(x, values[norm : norm + size], numbers[EPSILON], spare[:size])
                x = spare[:size]
            if part <= group:
                turned(x, cos[at], sin[at], out)
            else:
                for j in range(size):
                    out[j] = x[j]
            if part < group:
                for j in range(size):
                    out[j] *= scale
            for j in range(size, padded):
                out[j] = np.float32(0)


@_function
def _attend(
    shape: Any,
    head: Any,
    tokens: Any,
    positions: Any,
    places: Any,
    queries: Any,
    keys: Any,
    cached: Any,
    mine: Any,
    out: Any,
) -> None:
    """Mix the values that each token of a run sees, for the queries that share one key/value head."""
    size, padded, group = shape[SIZE], shape[PADDED], shape[HEADS] // shape[KV_HEADS]
    mixed, scores = mine[:padded], mine[padded:]
    first, last = tokens[0] * group, tokens[1] * group
    key_place, value_place = keys.ctypes.data + 4 * places, cached.ctypes.data + 4 * places
    step = shape[CAPACITY]
    for row in range(first, last, 4):
        count = min(4, last - row)
        end = positions[(row + count - 1) // group] + 1
        x = queries[head, row].ctypes.data
        tiles_float32(x, 4 * padded, count, key_place, padded, end, scores.ctypes.data, 4 * step)
        for i in range(row, row + count):
            token = i // group
            sees = positions[token] + 1
            shares = scores[(i - row) * step : (i - row) * step + sees]
            softmax(shares)
            mix(shares.ctypes.data, value_place, padded, sees, mixed.ctypes.data)
            start = (head * group + i - token * group) * size
            place = out[token, start : start + size]
            for j in range(size):
                place[j] = mixed[j]


@_function
def _claim(counters: Any, number: Any) -> Any:
    """The next piece of a list of work."""
    return count_up(counters + 2 * CACHE_LINE * number)


@_function
def _finish(counters: Any, number: Any) -> None:
    """Tell that a claimed piece is done."""
    count_up(counters + 2 * CACHE_LINE * number + CACHE_LINE)


@_function
def _wait(counters: Any, number: Any, pieces: Any) -> None:
    """Until all pieces of a list are done."""
    spins = 0
    while look(counters + 2 * CACHE_LINE * number + CACHE_LINE) < pieces:
        spins += 1
        if spins > SPINS:
            step_aside()


@_function
def _project(
    matrices: Any,
    parts: Any,
    values: Any,
    x: Any,
    count: Any,
    out: Any,
    adding: Any,
    mine: Any,
    counters: Any,
    number: Any,
) -> None:
    """The products of one input with some matrices, side by side in out [count, …], or added to what is there."""
    pieces = 0
    for part in range(parts[0], parts[1]):
        pieces += (matrices[part, OUT] + COLUMNS - 1) // COLUMNS
    while True:
        piece, start, part = _claim(counters, number), 0, parts[0]
        if piece >= pieces:
            break
        while piece >= (matrices[part, OUT] + COLUMNS - 1) // COLUMNS:
            piece -= (matrices[part, OUT] + COLUMNS - 1) // COLUMNS
            start += matrices[part, OUT]
            part += 1
        first = piece * COLUMNS
        last = min(first + COLUMNS, matrices[part, OUT])
        multiply(matrices[part], values, x, count, first, last, mine)
        for i in range(count):
            line, place = mine[i * COLUMNS : i * COLUMNS + last - first], out[i, start + first : start + last]
            if adding:
                for j in range(last - first):
                    place[j] += line[j]
            else:
                for j in range(last - first):
                    place[j] = line[j]
        _finish(counters, number)
    _wait(counters, number, pieces)


@_function
def _widen(
    matrices: Any,
    layer: Any,
    values: Any,
    shape: Any,
    x: Any,
    count: Any,
    out: Any,
    mine: Any,
    counters: Any,
    number: Any,
) -> None:
    """The feed-forward part's inner values [count, F]."""
    width, size = shape[WIDTH], count * COLUMNS
    pieces = (width + COLUMNS - 1) // COLUMNS
    gates, ups = mine[:size], mine[size : 2 * size]
    begin = GATE if shape[ACTIVATION] == SWIGLU else UP
    while True:
        piece = _claim(counters, number)
        if piece >= pieces:
            break
        first = piece * COLUMNS
        last = min(first + COLUMNS, width)
        for part in range(begin, DOWN):
            into = mine[(part - GATE) * size : (part - GATE + 1) * size]
            multiply(matrices[layer * PARTS + part], values, x, count, first, last, into)
        for i in range(count):
            low, high = i * COLUMNS, i * COLUMNS + last - first
            activate(shape[ACTIVATION], gates[low:high], ups[low:high], out[i, first:last])
        _finish(counters, number)
    _wait(counters, number, pieces)


@_function
def _attention(
    gain: Any,
    values: Any,
    shape: Any,
    numbers: Any,
    tokens: Any,
    base: Any,
    buffers: Any,
    mixed: Any,
    mine: Any,
    counters: Any,
    number: Any,
) -> None:
    """A piece is one key/value head of one run."""
    slots, positions, runs = tokens
    joined, queries, keys, cached, cos, sin = buffers
    heads = shape[KV_HEADS]
    pieces = (len(runs) - 1) * heads
    line = shape[CAPACITY] * shape[PADDED]
    while True:
        piece = _claim(counters, number)
        if piece >= pieces:
            break
        run, head = piece // heads, piece % heads
        part = (runs[run], runs[run + 1])
        places = base + (slots[runs[run]] * heads + head) * line
        held = (joined, queries, keys, cached, cos, sin, mine)
        _place_heads(gain, values, shape, numbers, head, part, positions, places, held)
        _attend(shape, head, part, positions, places, queries, keys, cached, mine, mixed)
        _finish(counters, number)
    _wait(counters, number, pieces)


@compiled(fastmath=FAST, uses=(bits.__file__, vectors.__file__, layout.__file__, arithmetic.__file__))
def step(
    matrices: Any,
    gains: Any,
    values: Any,
    shape: Any,
    numbers: Any,
    cos: Any,
    sin: Any,
    slots: Any,
    positions: Any,
    runs: Any,
    wanted: Any,
    keys: Any,
    cached: Any,
    x: Any,
    joined: Any,
    queries: Any,
    mixed: Any,
    inner: Any,
    logits: Any,
    lists: Any,
    own: Any,
    work: Any,
) -> None:
    """Carry x [M,H] (embedded tokens; changed) through all layers, and give logits [W,V] of the rows `wanted` [W].

    Of the lists of work, numbered LISTS to a layer and one for the logits, those from lists[0] on and before lists[1].
    matrices [layers·PARTS + 1, 6], the head last; gains [layers + 1, 6], the final norm's last; values: scales,
    biases and gains, fp32; slots, positions [M]; runs: where each begins, and M; keys, cached: the cache, flat
    [layers, slots, K, capacity, P]; own: this thread's scratch; work: counters, zero before the first list.
    """
    count, size, counters, epsilon = len(slots), shape[HIDDEN], work.ctypes.data, numbers[EPSILON]
    norms, mine = own[: count * size], own[count * size :]
    place = norms.ctypes.data
    span = shape[SLOTS] * shape[KV_HEADS] * shape[CAPACITY] * shape[PADDED]
    tokens, buffers = (slots, positions, runs), (joined, queries, keys, cached, cos, sin)
    for number in range(lists[0], lists[1]):  # one place calls each part, for that compiles sooner
        layer, stage = number // LISTS, number % LISTS
        gain, final = gains[layer], layer == shape[LAYERS]
        rows, first, last, source, out = count, QUERY, OUTPUT, place, joined
        if final:
            rows, last, out = len(wanted), QUERY + 1, logits
        if stage == MIXING:
            _attention(gain, values, shape, numbers, tokens, layer * span, buffers, mixed, mine, counters, number)
            continue
        if stage == MIXED:
            first, last, source, out = OUTPUT, GATE, mixed.ctypes.data, x
        elif stage == NARROWING:
            first, last, source, out = DOWN, PARTS, inner.ctypes.data, x
        else:
            second = 2 * int(stage == WIDENING)
            for i in range(rows):
                line = x[wanted[i]] if final else x[i]
                into = norms[i * size : (i + 1) * size]
                norm_row(line, values, gain[second], gain[second + 1], shape, epsilon, into)
        if stage == WIDENING:
            _widen(matrices, layer, values, shape, place, count, inner, mine, counters, number)
            continue
        parts, adding = (layer * PARTS + first, layer * PARTS + last), stage != JOINING
        _project(matrices, parts, values, source, rows, out, adding, mine, counters, number)
