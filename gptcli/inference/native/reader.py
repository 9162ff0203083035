"""The reader of models on a CPU: inference/native/step.py over packed tokens, in fp32 but for the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba.core import event
from torch import Tensor

from gptcli.console import tell
from gptcli.inference.native import layout
from gptcli.inference.native.packed import FEWEST_ROWS, Products, products
from gptcli.inference.native.step import step
from gptcli.inference.native.team import helpers
from gptcli.inference.native.vectors import CACHE_LINE, LANES
from gptcli.inference.native.weights import collect
from gptcli.models.family import CausalLM
from gptcli.models.gpt2 import Gpt2

TOKENS_AT_ONCE = 128  # of a prompt: more would not make the loops' products faster
PACKED_TOKENS_AT_ONCE = 512  # nor oneDNN's
Array = npt.NDArray[Any]


class _Notice(event.Listener):
    """Says why the first step on a machine takes its time; where the compiled code is kept already, nothing."""

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"] is step:
            tell("compiling the loops of this machine, once: about 20 s")

    def on_end(self, event: Any) -> None:
        """There is nothing to say then."""


event.register("numba:compile", _Notice())  # type: ignore[no-untyped-call]


class NativeReader:
    """Sequences and their keys and values (fp32), read in compiled loops that all threads of torch's number share.

    A sequence's logits are bit for bit the same whatever is read beside it, in however many pieces and by however many
    threads; not so where `packed` products serve steps of many rows: then they differ by what rounding does (fp32), or
    by that of the model's own modules (bf16).
    """

    def __init__(self, model: CausalLM, slots: int, capacity: int = 256, *, packed: bool = False) -> None:
        config = model.config
        self._model, self._limit = model, config.max_position_embeddings
        self._packed = packed
        self._products: Products | None = None  # made when they are first of use
        self._fewest = 1 if isinstance(model, Gpt2) else FEWEST_ROWS  # whose matrices the loops would have to copy
        self._weights = collect(model, turning=not packed)
        self._capacity = min(capacity, self._limit)
        self._padded = -(-config.head_dim // LANES) * LANES
        self._keys, self._values = self._tables(slots), self._tables(slots)
        self.lengths = [0] * slots
        eps = model.config.layer_norm_epsilon if isinstance(model, Gpt2) else model.config.rms_norm_eps
        self._numbers = np.asarray([eps], np.float32)
        self._tokens = 0  # that the buffers have room for
        self._buffers: tuple[Array, ...] = ()

    @torch.no_grad()
    def read(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """See Reader."""
        longest = max(self.lengths[slot] + len(row) for slot, row in zip(slots, rows, strict=True))
        if longest > self._capacity:
            self._grow(longest)
        packed = [
            (slot, self.lengths[slot] + i, token, number if i == len(row) - 1 else -1)
            for number, (slot, row) in enumerate(zip(slots, rows, strict=True))
            for i, token in enumerate(row)
        ]
        logits = np.empty((len(rows), self._model.config.vocab_size), np.float32)
        most = PACKED_TOKENS_AT_ONCE if self._packed else TOKENS_AT_ONCE
        for start in range(0, len(packed), most):
            self._read_some(np.asarray(packed[start : start + most], np.int64), logits)
        for slot, row in zip(slots, rows, strict=True):
            self.lengths[slot] += len(row)
        return self._capped(torch.from_numpy(logits))

    def copy(self, source: int, target: int, length: int) -> None:
        """See Reader."""
        if source != target:
            for table in (self._keys, self._values):
                table[:, target, :, :length] = table[:, source, :, :length]
        self.lengths[target] = length

    def _read_some(self, packed: Array, logits: Array) -> None:
        """Read tokens [M,4]: their slots, positions and ids, and whose logits are wanted after them (or -1)."""
        slots, positions, ids, numbers = (np.ascontiguousarray(column) for column in packed.T)
        wanted = np.flatnonzero(numbers >= 0)
        begins = np.flatnonzero(np.diff(slots, prepend=-1))
        runs = np.append(begins, len(slots))
        x = self._embedded(ids, positions)
        out = np.empty((len(wanted), logits.shape[1]), np.float32)
        walk = self._walk(slots, positions, runs, wanted, x, out)
        if self._packed and len(slots) >= self._fewest:
            self._by_products(walk, x, wanted, out)
        else:
            walk(0, self._lists)
        logits[numbers[wanted]] = out

    def _by_products(self, walk: Callable[[int, int], None], x: Array, wanted: Array, out: Array) -> None:
        """Give the logits of the rows `wanted`, all but attention by packed products, where there are many rows."""

        def attend(layer: int) -> None:
            walk(layer * layout.LISTS + layout.MIXING, layer * layout.LISTS + layout.MIXING + 1)

        joined, _, mixed, *_ = (torch.from_numpy(buffer[: len(x)]) for buffer in self._buffers)
        if self._products is None:
            self._products = products(self._model)
        rows, found = torch.from_numpy(x), self._products
        found.carry(rows, joined, mixed, attend)
        if len(wanted) >= FEWEST_ROWS:
            out[:] = found.logits(rows[torch.from_numpy(wanted)]).numpy()
        else:
            walk(self._lists - 1, self._lists)

    def _walk(self, *tokens: Array) -> Callable[[int, int], None]:
        """What does the lists of work from one number on and before another, in this thread and its helpers."""
        slots, positions, runs, wanted, x, out = tokens
        weights, work = self._weights, np.zeros(2 * self._lists * CACHE_LINE // 8, np.int64)
        joined, queries, mixed, inner, own = self._room(len(slots))
        given = (weights.matrices, weights.gains, weights.values, self._shape, self._numbers, weights.cos, weights.sin)
        held = (self._keys.reshape(-1), self._values.reshape(-1), x, joined, queries, mixed, inner, out)
        call = partial(step, *given, slots, positions, runs, wanted, *held)
        team = helpers(len(own) - 1)

        def walk(first: int, last: int) -> None:
            lists = np.asarray([first, last], np.int64)
            try:
                for number, helper in enumerate(team):
                    if not helper.busy:
                        helper.give(partial(call, lists, own[number + 1], work))
                call(lists, own[0], work)
            except BaseException:  # Ctrl-C before this thread began: the others finish into these buffers
                for helper in team:
                    helper.join()
                raise

        return walk

    def _embedded(self, ids: Array, positions: Array) -> Array:
        model, at = self._model, torch.from_numpy(ids)
        if isinstance(model, Gpt2):
            places = model.transformer.wpe.weight[torch.from_numpy(positions)]
            x: Tensor = model.transformer.wte(at).float() + places.float()
        else:
            x = model.model.embed_tokens(at).float()
        found: Array = x.numpy()
        return found

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self._model.softcap
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def _shape(self) -> Array:
        config = self._model.config
        sizes = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        places = (self._padded, config.intermediate_size, config.num_hidden_layers, len(self.lengths), self._capacity)
        kinds = (int(isinstance(self._model, Gpt2)), self._weights.activation)
        return np.asarray((*sizes, *places, *kinds), np.int64)

    @property
    def _lists(self) -> int:
        """How many lists of work there are; the last one's are the logits."""
        return self._model.config.num_hidden_layers * layout.LISTS + 1

    def _room(self, count: int) -> tuple[Array, ...]:
        """Buffers for `count` tokens, kept from call to call: joined, queries, mixed, inner, and one a thread."""
        threads = torch.get_num_threads()
        if count > self._tokens or len(self._buffers[-1]) != threads:
            self._tokens = max(count, self._tokens)
            config, room = self._model.config, self._tokens
            heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
            own = room * (config.hidden_size + 2 * layout.COLUMNS) + self._padded + 4 * self._capacity
            shapes = (
                (room, (heads + 2 * kv_heads) * size),
                (kv_heads, room * heads // kv_heads, self._padded),
                (room, heads * size),
                (room, config.intermediate_size),
                (threads, own),
            )
            self._buffers = tuple(np.zeros(shape, np.float32) for shape in shapes)
        return self._buffers

    def _tables(self, slots: int) -> Array:
        config = self._model.config
        shape = (config.num_hidden_layers, slots, config.num_key_value_heads, self._capacity, self._padded)
        return np.empty(shape, np.float32)

    def _grow(self, length: int) -> None:
        before = self._capacity
        self._capacity = min(max(2 * before, length), self._limit)
        self._tokens = 0
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = self._tables(len(self.lengths))
            new[:, :, :, :before] = old
            setattr(self, name, new)
