"""Hugging Face's model directory: what transformers, PEFT and most servers open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.artifacts.locations import ADAPTER_CONFIG
from gptcli.errors import ArtifactError
from gptcli.export.source import Source
from gptcli.export.spec import ExportSpec
from gptcli.models.family import CausalLM
from gptcli.models.load import (
    ADAPTER_WEIGHTS,
    WEIGHTS,
    load_adapter,
    load_model,
    read_adapter_config,
    save_adapter,
    save_model,
)
from gptcli.models.lora import merge
from gptcli.models.weights import read_tensors

BASE = "base"  # the folder of the base model beside an adapter kept apart


class HuggingFace:
    """`--to hf`: config.json, model.safetensors, the tokenizer; or `base/` and an adapter beside it."""

    name = "hf"

    def write(self, source: Source, spec: ExportSpec, directory: Path) -> dict[str, Any]:
        """Write the model's files into `directory`; returns figures for the manifest's stats.

        Raises ArtifactError when the model computes what transformers would not, and when the weights read back are
        not the weights written.
        """
        _require_known_elsewhere(source)
        dtype = source.stored if spec.dtype == "auto" else getattr(torch, spec.dtype)
        apart = source.adapted and not spec.merge
        home = directory / BASE if apart else directory
        if apart:
            state = load_model(source.weights, checked=True).state_dict()
            self._write_adapter(source, directory)
            source.tokenizer.copy_to(directory, model_max_length=source.model.config.max_position_embeddings)
        else:
            state = merge(source.model)
        save_model(state, source.config(), home, dtype, source.stop_ids())
        source.tokenizer.copy_to(home, model_max_length=source.model.config.max_position_embeddings)
        self._check_stored(state, home / WEIGHTS, dtype)
        layouts = {
            (True, True): "base and adapter apart",
            (True, False): "adapter merged",
            (False, False): "whole model",
        }
        return {
            "layout": layouts[source.adapted, apart],
            "parameters": sum(tensor.numel() for tensor in state.values()),
            "dtype": str(dtype).removeprefix("torch."),
            "weight_bytes": (home / WEIGHTS).stat().st_size,
        }

    def reopen(self, directory: Path) -> CausalLM:
        """What `write` made, in float32."""
        if not (directory / ADAPTER_CONFIG).is_file():
            return load_model(directory)
        model = load_model(directory / BASE)
        load_adapter(model, directory)
        return model

    def usage(self, source: Source, spec: ExportSpec) -> str:
        """Python that opens the export, for the model card."""
        if source.adapted and not spec.merge:
            opening = (
                "from peft import PeftModel\n"
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                f'base = AutoModelForCausalLM.from_pretrained("./{BASE}")\n'
                'model = PeftModel.from_pretrained(base, ".")\n'
            )
        else:
            opening = (
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                'model = AutoModelForCausalLM.from_pretrained(".")\n'
            )
        return opening + 'tokenizer = AutoTokenizer.from_pretrained(".")\n' + _generation(source.chat)

    def _write_adapter(self, source: Source, directory: Path) -> None:
        lora, _ = read_adapter_config(source.ref.directory)
        save_adapter(source.model, lora, BASE, directory)
        kept = read_tensors(directory / ADAPTER_WEIGHTS)
        own = read_tensors(source.ref.directory / ADAPTER_WEIGHTS)
        if any(not torch.equal(own[name].float(), kept[name]) for name in own):
            raise ArtifactError(f"{directory / ADAPTER_WEIGHTS}: the adapter read back is not the one written")

    def _check_stored(self, state: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
        stored = read_tensors(path)
        for name, tensor in stored.items():
            if not torch.equal(tensor, state[name].to(dtype)):
                raise ArtifactError(f"{path}: {name} read back is not what was written", "check the disk; try again")


def _require_known_elsewhere(source: Source) -> None:
    cap = source.model.config.final_logit_softcapping
    if cap:
        raise ArtifactError(
            f"{source.ref.label} bounds its logits (final_logit_softcapping={cap:g}), which transformers computes for "
            f"no {source.model.config.model_type}: it would answer otherwise there",
            "export a model pretrained without logit_softcap",
        )


def _generation(chat: bool) -> str:
    if chat:
        return (
            'chat = [{"role": "user", "content": "Hello"}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n'
            ")\n"
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))\n"
        )
    return (
        'inputs = tokenizer("Once", return_tensors="pt", split_special_tokens=True)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))\n"
    )
