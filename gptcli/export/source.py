"""The model to export, opened once, with all that a format may want to know of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from gptcli.artifacts.locations import ModelRef
from gptcli.artifacts.project import Project
from gptcli.inference.adapter_base import adapter_base
from gptcli.inference.open import answers_chat, open_model
from gptcli.models.family import CausalLM, ModelConfig
from gptcli.models.load import stored_dtype
from gptcli.templates import encode_chat
from gptcli.tokenizer import Tokenizer

COMPARED_TOKENS = 512  # at most so many of each text


@dataclass(frozen=True)
class Source:
    """A model in float32 on the CPU, an adapter in place but not merged."""

    model: CausalLM
    tokenizer: Tokenizer
    ref: ModelRef
    weights: Path  # the directory of the full weights: the model's own, or the adapter's base
    chat: bool  # it was tuned to take turns

    @staticmethod
    def open(project: Project, ref: str) -> Source:
        """Raises ArtifactError when the model is missing, damaged, or its vocabulary isn't its tokenizer's."""
        model, tokenizer, found = open_model(project, ref, torch.device("cpu"), torch.float32)
        weights = adapter_base(project, found.directory) if found.kind == "adapter" else found.directory
        return Source(model, tokenizer, found, weights, answers_chat(found, tokenizer))

    @property
    def adapted(self) -> bool:
        return self.ref.kind == "adapter"

    @property
    def stored(self) -> torch.dtype:
        """The type the full weights are stored in."""
        return stored_dtype(self.weights)

    def config(self) -> ModelConfig:
        """The model's config, its special ids filled in from the tokenizer where it has none."""
        config, tokenizer = self.model.config, self.tokenizer
        return dataclasses.replace(
            config,
            bos_token_id=tokenizer.bos_id if config.bos_token_id is None else config.bos_token_id,
            eos_token_id=tokenizer.eos_id if config.eos_token_id is None else config.eos_token_id,
            pad_token_id=tokenizer.pad_id if config.pad_token_id is None else config.pad_token_id,
        )

    def stop_ids(self) -> tuple[int, ...]:
        """Where generation ends: what the model's own generation_config.json says, and a chat's end of turn."""
        ids = [*self._own_stops(), *([self.tokenizer.eot_id] if self.chat else [])]
        return tuple(dict.fromkeys(ids))

    def _own_stops(self) -> tuple[int, ...]:
        try:
            raw = json.loads((self.weights / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError):
            raw = None
        if raw is None:
            return self.config().eos_ids
        return tuple(raw) if isinstance(raw, list) else (raw,)

    def texts(self, text: str) -> list[list[int]]:
        """Token ids to compare logits on: `text` as a document, and for a chat model as a question and its answer."""
        longest = min(COMPARED_TOKENS, self.model.config.max_position_embeddings)
        rows = [self.tokenizer.document(text)]
        if self.chat:
            half = text[: max(1, longest // 4)]
            turns = [{"role": "user", "content": half}, {"role": "assistant", "content": text}]
            rows.append(encode_chat(self.tokenizer, turns)[0])
        return [row[:longest] for row in rows]
