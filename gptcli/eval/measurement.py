"""A model on its device, what is asked of it, and what was found so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from gptcli.artifacts.locations import ModelRef
from gptcli.errors import ArtifactError, SpecError
from gptcli.eval.spec import EvalSpec
from gptcli.inference.open import answers_chat, open_model
from gptcli.job import Job
from gptcli.models.family import CausalLM
from gptcli.runtime.device import default_dtype
from gptcli.runtime.memory import keep_freed_memory
from gptcli.scoring.intervals import Interval
from gptcli.scoring.judged import Judged
from gptcli.scoring.language_modelling import TokenScore
from gptcli.tokenizer import Tokenizer
from gptcli.training.setup import tokens_at_once


@dataclass
class Measurement:
    """What an evaluation has: `figures` (flat names) and their `intervals`, `told`, what report.json says beside them,
    all reproducible; `records`, which are not; the `judged` items of each task, and the names of its figures, the
    `first` to look at in front; `documents`, columns of sums over each document."""

    spec: EvalSpec
    job: Job
    found: ModelRef
    model: CausalLM
    tokenizer: Tokenizer
    device: torch.device
    dtype: torch.dtype
    seq_len: int
    figures: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    judged: dict[str, Sequence[Judged]] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def open(spec: EvalSpec, job: Job, device: torch.device) -> Measurement:
        """Open the model. Raises ArtifactError when it isn't there, SpecError for a seq_len beyond its context."""
        if device.type == "cpu":
            keep_freed_memory()
        # fp32 weights under autocast, as in training: the figures are then those of its validation.
        model, tokenizer, found = open_model(job.project, spec.model, device, torch.float32)
        dtype = default_dtype(device) if spec.dtype == "auto" else getattr(torch, spec.dtype)
        longest = model.config.max_position_embeddings
        if spec.seq_len > longest:
            raise SpecError(
                f"seq_len = {spec.seq_len} is longer than the context of {spec.model}, {longest} tokens",
                f"use --set seq_len={longest} or less, or leave it out",
            )
        return Measurement(spec, job, found, model, tokenizer, device, dtype, spec.seq_len or longest)

    @property
    def batch_size(self) -> int:
        """Windows at once."""
        return self.spec.batch_size or max(tokens_at_once(self.device, 1) // self.seq_len, 1)

    @cached_property
    def chat_tuned(self) -> bool:
        return answers_chat(self.found, self.tokenizer)

    def require_finite(self, score: TokenScore) -> None:
        """ArtifactError for a loss that is no number, or too large for one."""
        if score.tokens and not math.isfinite(score.perplexity):
            raise ArtifactError(
                f"the loss of {self.spec.model} is {score.loss}: its weights are no trained model's",
                f"gptcli checkpoint verify {self.spec.model} names the tensors that are not finite",
            )
