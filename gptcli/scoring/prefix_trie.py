"""Sequences of tokens as prefix tries in rows: what several of them begin with stands, and is computed, once.

The sequences are sorted and cut into rows of whole sequences; in a row each distinct prefix is one node, a token at
position = depth, and nodes stand depth first. Node j is then seen by node i, itself or a descendant, exactly when
j ≤ i ≤ last[j], the place of j's last descendant. What a row's first sequence shares with the row before is computed
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MOST_REPEATED = 4  # a full row ends where what is computed again for the next is at most this part of it: 1/4


@dataclass(frozen=True)
class Query:
    """A sequence and what is asked of it: how likely each token from `first` (at least 1) on is after those before."""

    ids: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Row:
    """One row of T nodes, and the P predictions asked of it: `ids`, `positions`, `last` [T]; `nodes` (whose hidden
    state predicts), `targets` and `queries` (the numbers of the queries that ask) [P]."""

    ids: Ints
    positions: Ints
    last: Ints
    nodes: Ints
    targets: Ints
    queries: Ints


@dataclass(frozen=True)
class _Flat:
    """Sorted sequences end to end: of each its `begin`, `length` and the tokens shared with the one before; of each
    token its `owner` (the sequence) and `depth`."""

    ids: Ints
    begin: Ints
    length: Ints
    shared: Ints
    owner: Ints
    depth: Ints


def plan_rows(queries: Sequence[Query], row_nodes: int, part_tokens: int = 1 << 22) -> Iterator[Row]:
    """The rows of all queries, of about `row_nodes` nodes each; longer where a sequence is, or where much of the row
    would be computed again for the next one. `part_tokens`: how many tokens are looked at at once, for memory."""
    order = sorted(range(len(queries)), key=lambda number: queries[number].ids[:-1])
    start, tokens = 0, 0
    for end, number in enumerate(order, 1):
        tokens += len(queries[number].ids)
        if tokens >= part_tokens or end == len(order):
            yield from _plan_part(queries, order[start:end], row_nodes)
            start, tokens = end, 0


def _plan_part(queries: Sequence[Query], order: list[int], row_nodes: int) -> Iterator[Row]:
    # A sequence's last token predicts nothing: it is no node.
    flat = _flatten([queries[number].ids[:-1] for number in order])
    starts = _row_starts(flat.length.tolist(), flat.shared.tolist(), row_nodes)
    flat.shared[starts] = 0
    node = _number_nodes(flat)
    last = np.zeros(int(node.max()) + 1, np.int64)
    ends = flat.begin + flat.length - 1
    last[node] = node[ends][flat.owner]  # of repeated places the last value stays: the last sequence through the node
    new = flat.depth >= flat.shared[flat.owner]
    ids, positions = flat.ids[new], flat.depth[new]
    first = np.array([queries[number].first for number in order])
    asked = flat.depth + 1 >= first[flat.owner]
    targets = _targets([queries[number].ids[-1] for number in order], flat)
    numbers = np.array(order)
    for low, high in zip(starts, [*starts[1:], len(order)], strict=True):
        tokens = slice(int(flat.begin[low]), int(ends[high - 1]) + 1)
        base = int(node[tokens.start])
        places = slice(base, int(node[tokens.stop - 1]) + 1)
        wanted = asked[tokens]
        yield Row(
            ids[places],
            positions[places],
            last[places] - base,
            node[tokens][wanted] - base,
            targets[tokens][wanted],
            numbers[flat.owner[tokens][wanted]],
        )


def _flatten(sequences: Sequence[Sequence[int]]) -> _Flat:
    length = np.array([len(sequence) for sequence in sequences])
    total = int(length.sum())
    ids = np.fromiter(chain.from_iterable(sequences), np.int64, total)
    begin = np.cumsum(length) - length
    owner = np.repeat(np.arange(len(length)), length)
    depth = np.arange(total) - begin[owner]
    # The same depth of the sequence before, where it is that long; else any place, which counts as unlike.
    before = np.maximum(owner - 1, 0)
    there = (owner > 0) & (depth < length[before])
    like = there & (ids == ids[np.where(there, begin[before] + depth, 0)])
    shared = np.minimum.reduceat(np.where(like, length[owner], depth), begin)
    return _Flat(ids, begin, length, shared, owner, depth)


def _row_starts(lengths: list[int], shared: list[int], row_nodes: int) -> list[int]:
    """The first sequence of each row."""
    starts, nodes = [0], 0
    for number, (length, common) in enumerate(zip(lengths, shared, strict=True)):
        more = length - common
        if number and nodes + more > row_nodes and common * MOST_REPEATED <= nodes:
            starts.append(number)
            nodes, more = 0, length
        nodes += more
    return starts


def _number_nodes(flat: _Flat) -> Ints:
    """The node of each token, numbered on through all rows.

    Nodes come into being in the order of the tokens; a token that shares its node has that of the latest new one of
    its depth.
    """
    new = flat.depth >= flat.shared[flat.owner]
    number = np.cumsum(new) - 1
    order = np.argsort(flat.depth, kind="stable")
    by_depth = flat.depth[order] * len(number)  # so that each depth's numbers are above those of the one before
    latest = np.maximum.accumulate(np.where(new[order], by_depth + number[order], 0)) - by_depth
    node = np.empty_like(number)
    node[order] = latest
    return node


def _targets(finals: list[int], flat: _Flat) -> Ints:
    """The token after each one; after a sequence's last node its final token."""
    out = np.empty_like(flat.ids)
    out[:-1] = flat.ids[1:]
    out[flat.begin + flat.length - 1] = finals
    return out
