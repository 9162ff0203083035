from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gptcli.artifacts.locations import ModelRef
from gptcli.artifacts.project import Project
from gptcli.engines.byte_level import CHARACTERS
from gptcli.finetune_lora.run import Tuning
from gptcli.inference.open import answers_chat
from gptcli.models.config import LlamaConfig
from gptcli.models.llama import Llama
from gptcli.models.lora import LoraConfig, apply_lora
from gptcli.templates import CHAT_TEMPLATE, chat_template
from gptcli.tokenize.importing import find, import_tokenizer
from gptcli.tokenizer import TURN_END, TURN_START, Tokenizer

THEIRS = "{{ messages }}"


def taken(folder: Path, special: list[str], **config: Any) -> Tokenizer:
    """A byte-level tokenizer that came with a chat template, as it is taken."""
    source, target = folder / "source", folder / "taken"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(CHARACTERS)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    (source / "added_tokens.json").write_text(json.dumps({piece: 256 + place for place, piece in enumerate(special)}))
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": special[0], **config}))
    (source / "chat_template.jinja").write_text(THEIRS)
    import_tokenizer(find(source), target)
    return Tokenizer.load(target)


@pytest.mark.parametrize("special", [["</s>"], ["</s>", TURN_START, TURN_END]], ids=["plain", "markers"])
def test_an_adapter_carries_the_template_it_was_tuned_with(special: list[str], tmp_path: Path) -> None:
    tokenizer = taken(tmp_path, special)
    lora = LoraConfig(2, 4.0)
    module = Llama(LlamaConfig("qwen3", tokenizer.vocab_size, 16, 24, 1, 2, 1, 8, 32))
    apply_lora(module, lora, torch.Generator().manual_seed(0))
    tuning = object.__new__(Tuning)
    project = Project.open(tmp_path, None)
    vars(tuning).update(
        spec=SimpleNamespace(seq_len=32),
        job=SimpleNamespace(project=project),
        base=tmp_path / "base",
        tokenizer=tokenizer,
        module=module,
        lora=lora,
    )
    tuning.snapshot()(tmp_path / "adapter")
    written = (tmp_path / "adapter" / "chat_template.jinja").read_text()
    assert written == chat_template(tokenizer) != THEIRS
    assert (tokenizer.directory / "chat_template.jinja").read_text() == THEIRS
    assert written == (CHAT_TEMPLATE.removeprefix("{{- bos_token }}") if len(special) > 1 else written)


def test_a_merged_model_without_markers_is_known_to_take_turns(tmp_path: Path) -> None:
    """Its eos ends turns and documents alike, so that nothing in generation_config.json tells."""
    tokenizer = taken(tmp_path, ["</s>"])
    place = tmp_path / "merged"
    place.mkdir()
    (place / "generation_config.json").write_text('{"eos_token_id": 256}')
    found = ModelRef(place, "directory", "./merged")
    assert not answers_chat(found, tokenizer)
    (place / "chat_template.jinja").write_text(THEIRS)
    assert not answers_chat(found, tokenizer)
    (place / "chat_template.jinja").write_text(chat_template(tokenizer))
    assert answers_chat(found, tokenizer)
