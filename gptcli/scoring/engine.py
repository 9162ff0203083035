"""One model that answers what tasks ask: likelihoods and completions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, cast

import torch

from gptcli.models.family import CausalLM
from gptcli.scoring.likelihood import score_requests
from gptcli.scoring.requests import Answer, Completion, CompletionAnswer, Likelihood, LikelihoodAnswer, Request
from gptcli.tokenizer import Tokenizer

Advance = Callable[[int], None]


class Answering(Protocol):
    """What answers requests, in their order."""

    def answer(self, requests: Sequence[Request], advance: Advance | None = None) -> list[Answer]: ...


class Engine:
    """A model on its device. `batch_size`: rows or prompts at once, 0: as the device does best; `stop_ids` end a
    completion; `check` is called between batches and may raise."""

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int = 0,
        stop_ids: Collection[int],
        check: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.device, self.dtype = model, tokenizer, device, dtype
        self.batch_size, self.stop_ids, self.check = batch_size, stop_ids, check

    def answer(self, requests: Sequence[Request], advance: Advance | None = None) -> list[Answer]:
        """The answers in the order of the requests; `advance` is told how many more were answered."""
        likelihoods = [request for request in requests if isinstance(request, Likelihood)]
        completions = [request for request in requests if isinstance(request, Completion)]
        scored, completed = iter(self.likelihoods(likelihoods, advance)), iter(self.completions(completions, advance))
        return [cast(Answer, next(scored if isinstance(request, Likelihood) else completed)) for request in requests]

    def likelihoods(self, requests: Sequence[Likelihood], advance: Advance | None = None) -> list[LikelihoodAnswer]:
        """Log-likelihoods by the rule of scoring/likelihood.py."""
        return score_requests(
            self.model,
            requests,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            check=self.check,
            advance=advance,
        )

    def completions(self, requests: Sequence[Completion], advance: Advance | None = None) -> list[CompletionAnswer]:
        """Greedy completions, which end with the model's positions. A prompt is cut from the left where it leaves room
        neither for its max_tokens nor for a quarter of the positions."""
        if not requests:
            return []
        from gptcli.inference.batch import generate_batch
        from gptcli.inference.sampling import Sampling
        from gptcli.scoring.language_modelling import autocast

        limit = self.model.config.max_position_embeddings
        prompts = [request.prompt[-(limit - min(request.max_tokens, limit // 4)) :] for request in requests]
        with autocast(self.device, self.dtype):
            found = generate_batch(
                self.model,
                self.tokenizer,
                prompts,
                [Sampling(temperature=0.0, max_tokens=request.max_tokens) for request in requests],
                stop_ids=self.stop_ids,
                stop=[request.stop for request in requests],
                batch_size=self.batch_size,
                check=self.check,
                advance=advance,
            )
        return [
            CompletionAnswer(
                each.text,
                len(each.ids),
                each.ended in ("stop_id", "stop_text"),
                len(request.prompt) - len(prompt),
            )
            for each, request, prompt in zip(found, requests, prompts, strict=True)
        ]
