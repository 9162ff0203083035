"""GGUF files written by the package gguf, of transformers' models, opened by us: the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gptcli.models.family import build_model
from gptcli.models.importers import open_foreign
from gptcli.models.importers.rotary_layout import to_pairs
from gptcli.tokenize.encoding.words import rules_of
from gptcli.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "Q8_0": torch.float32}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
GPT2 = {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name → architecture, config class, its keys
    "llama": ("llama", "LlamaConfig", {**SIZES, "tie_word_embeddings": False}),
    "llama tied": ("llama", "LlamaConfig", {**SIZES, "tie_word_embeddings": True, "rope_theta": 500000.0}),
    "llama biased": ("llama", "LlamaConfig", {**SIZES, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("llama", "MistralConfig", {**SIZES, "sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": ("qwen2", "Qwen2Config", {**SIZES, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", "Qwen3Config", {**SIZES, "head_dim": 32}),
    "gpt2": ("gpt2", "GPT2Config", GPT2),
    "gpt2 head twice": ("gpt2", "GPT2Config", GPT2),
}


def random_model(name: str) -> Any:
    torch.manual_seed(5)
    _, kind, keys = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**keys)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def converted(name: str, model: Any) -> dict[str, tuple[str, Tensor]]:
    """The tensors as llama.cpp's converter names and lays them out, each with the name it had."""
    architecture = MODELS[name][0]
    arch = next(number for number, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    names = gguf.get_tensor_name_map(arch, 2)
    found: dict[str, tuple[str, Tensor]] = {}
    for hf_name, tensor in model.state_dict().items():
        if hf_name == "lm_head.weight" and model.config.tie_word_embeddings and name != "gpt2 head twice":
            continue
        target = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert target is not None, hf_name
        if architecture == "llama" and (".q_proj." in hf_name or ".k_proj." in hf_name):
            heads = model.config.num_attention_heads if ".q_proj." in hf_name else model.config.num_key_value_heads
            tensor = to_pairs(tensor, heads)
        if architecture == "gpt2" and ".h." in hf_name and tensor.dim() == 2:
            tensor = tensor.t()
        found[target] = hf_name, tensor.contiguous()
    return found


def write(name: str, model: Any, kind: str, path: Path, tokenizer: Any = None) -> dict[str, Tensor]:
    """Write the file; returns what it holds, as numbers: matrices in `kind`, vectors in F32 as everywhere."""
    architecture, _, keys = MODELS[name]
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    if architecture == "gpt2":
        writer.add_feed_forward_length(256)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(128)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(keys.get("rope_theta", 10000.0))
        if "head_dim" in keys:
            writer.add_key_length(keys["head_dim"])
            writer.add_value_length(keys["head_dim"])
            writer.add_rope_dimension_count(keys["head_dim"])
        else:
            writer.add_rope_dimension_count(16)
    if tokenizer is not None:
        tokenizer(writer)
    held = {}
    for target, (_, tensor) in converted(name, model).items():
        stored = gguf.GGMLQuantizationType[kind if tensor.dim() == 2 else "F32"]
        data = gguf.quants.quantize(tensor.numpy(), stored)
        writer.add_tensor(target, data, raw_dtype=stored)
        held[target] = torch.from_numpy(np.array(gguf.quants.dequantize(data, stored), np.float32)).view(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("name", list(MODELS))
def test_logits_are_those_of_the_weights_in_the_file(name, kind, tmp_path):
    theirs = random_model(name)
    held = write(name, theirs, kind, tmp_path / "model.gguf")
    found = open_foreign(tmp_path / "model.gguf")
    ours = build_model(found.config).eval()
    ours.load_state_dict({name: tensor.read().float() for name, tensor in found.tensors.items()})
    matrices = {tensor.dtype for tensor in found.tensors.values() if len(tensor.shape) == 2}
    assert matrices == {TYPES[kind]}
    restore(name, theirs, held)
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = theirs(ids).logits, ours(ids)
    assert want.std() > 0.05
    assert (want - got).abs().max() < 1e-4


def restore(name: str, model: Any, held: dict[str, Tensor]) -> None:
    """Give transformers' model the rounded numbers that the file holds."""
    state = model.state_dict()
    with torch.no_grad():
        for target, (hf_name, _) in converted(name, model).items():
            state[hf_name].copy_(undone(name, model, target, held[target]))


def undone(name: str, model: Any, target: str, tensor: Tensor) -> Tensor:
    """The converter's change of layout, undone."""
    if MODELS[name][0] == "llama" and (".attn_q." in target or ".attn_k." in target):
        heads = model.config.num_attention_heads if ".attn_q." in target else model.config.num_key_value_heads
        pairs = tensor.view(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])
        return pairs.swapaxes(1, 2).reshape(tensor.shape)
    if MODELS[name][0] == "gpt2" and target.startswith("blk.") and tensor.dim() == 2:
        return tensor.t()
    return tensor


def byte_level(data_dir: Path, words: str) -> Any:
    """What puts GPT-2's vocabulary into a file, cut into words as `words` says."""
    vocab = json.loads((data_dir / "gpt2-bpe-vocab" / "encoder.json").read_text(encoding="utf-8"))
    lines = (data_dir / "gpt2-bpe-vocab" / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]

    def add(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(words)
        writer.add_token_list(sorted(vocab, key=lambda piece: vocab[piece]))
        writer.add_token_types([3 if piece == "<|endoftext|>" else 1 for piece in sorted(vocab, key=vocab.__getitem__)])
        writer.add_token_merges([line for line in lines if line])
        writer.add_bos_token_id(50256)
        writer.add_eos_token_id(50256)

    return add


def written(words: str, data_dir: Path, tmp_path: Path) -> Path:
    """The folder of the tokenizer that we make of such a file."""
    write("gpt2", random_model("gpt2"), "F32", tmp_path / "model.gguf", byte_level(data_dir, words))
    found = open_foreign(tmp_path / "model.gguf")
    assert found.tokenizer is not None
    found.tokenizer.write(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.parametrize(
    ("words", "rules"),
    [("gpt-2", "gpt2"), ("qwen2", "qwen2"), ("llama-bpe", "llama3")],
    ids=["gpt2", "qwen2", "llama3"],
)
def test_word_patterns_are_those_known_by_that_name(words, rules, data_dir, tmp_path):
    directory = written(words, data_dir, tmp_path)
    found = rules_of(json.loads((directory / "tokenizer.json").read_text(encoding="utf-8")))
    assert found is not None and found.pattern == rules
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    text = "Hello 12345 world's\n\n  I'LL café 日本語"
    assert Tokenizer.load(directory).encode(text) == theirs(text, add_special_tokens=False).input_ids


def test_a_byte_level_vocabulary_gives_the_ids_of_its_files(data_dir, tmp_path):
    ours = Tokenizer.load(written("gpt-2", data_dir, tmp_path))
    cases = (data_dir / "gguf-vocab-gpt2" / "ggml-vocab-gpt-2.gguf.inp").read_text(encoding="utf-8")
    wanted = (data_dir / "gguf-vocab-gpt2" / "ggml-vocab-gpt-2.gguf.out").read_text(encoding="utf-8")
    texts = cases.split("\n__ggml_vocab_test__\n")
    for text, ids in zip(texts, wanted.splitlines(), strict=False):
        assert ours.encode(text) == [int(each) for each in ids.split()], text
    assert (ours.bos_id, ours.eos_id) == (None, 50256)
