"""Generation: read a prompt once, then a token a step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from gptcli.errors import SpecError
from gptcli.inference.cache import Cache
from gptcli.inference.sampling import Sampling, sample
from gptcli.models.family import CausalLM


@torch.no_grad()
def read(model: CausalLM, cache: Cache, rows: Sequence[Sequence[int]]) -> Tensor:
    """Feed the next tokens of each sequence; returns the logits [B,V] after each one's last.

    Rows of different lengths are padded on the right, which the cache keeps out of sight.
    """
    device = next(model.parameters()).device
    counts = [len(row) for row in rows]
    longest = max(counts)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    positions = cache.begin(longest, device)
    hidden = model.hidden(ids, positions, cache)
    cache.advance(counts)
    last = hidden[torch.arange(len(rows), device=device), torch.tensor(counts, device=device) - 1]
    return model.head(last)


class Session:
    """A model and the tokens it has read; a prompt that begins as the last one did is not read again from the start."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self.cache = Cache(model.config, batch=1)
        self.ids: list[int] = []

    def generate(self, prompt: Sequence[int], settings: Sampling, stop_ids: Collection[int] = ()) -> Iterator[int]:
        """Yield new token ids until a stop id (not yielded), max_tokens, or the end of the model's positions.

        Raises SpecError when the prompt is empty or leaves no room.
        """
        limit = self.model.config.max_position_embeddings
        check_prompt(prompt, limit)
        generator = torch.Generator().manual_seed(settings.seed)
        self.cache.cut(self._common(prompt))
        self.ids = list(prompt)
        for _ in range(settings.max_tokens):
            logits = read(self.model, self.cache, [self.ids[self.cache.lengths[0] :]])
            token = sample(logits, [self.ids], settings, generator)[0]
            if token in stop_ids:
                return
            self.ids.append(token)
            yield token
            if len(self.ids) >= limit:
                return

    def _common(self, prompt: Sequence[int]) -> int:
        """How many leading tokens are in the cache already; the last one is always read, for its logits."""
        held = min(len(prompt) - 1, self.cache.lengths[0], len(self.ids))
        for at in range(held):
            if prompt[at] != self.ids[at]:
                return at
        return held


def generate(model: CausalLM, prompt: Sequence[int], settings: Sampling, stop_ids: Collection[int] = ()) -> list[int]:
    """The token ids that follow one prompt; see Session.generate.

    For a model in training too: dropout is off meanwhile, and its mode afterwards what it was.
    """
    was_training = model.training
    model.eval()
    try:
        return list(Session(model).generate(prompt, settings, stop_ids))
    finally:
        model.train(was_training)


def check_prompt(prompt: Sequence[int], limit: int) -> None:
    """Raise SpecError unless the prompt has a token and leaves room for one more within `limit` positions."""
    if not prompt:
        raise SpecError("the prompt is empty", "give at least one token of text")
    if len(prompt) >= limit:
        raise SpecError(
            f"the prompt has {len(prompt)} tokens, and the model reads at most {limit - 1} before its answer",
            "shorten it",
        )
