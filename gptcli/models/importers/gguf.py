"""GGUF: llama.cpp's file, of the architectures that are Hugging Face's llama (and mistral), qwen2, qwen3 and gpt2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gptcli.errors import ArtifactError
from gptcli.models.config import LlamaConfig
from gptcli.models.family import ModelConfig, config_from_hf
from gptcli.models.importers.fitting import fit
from gptcli.models.importers.foreign import ForeignModel, StoredTensor
from gptcli.models.importers.gguf_file import MAGIC, READABLE, GgufFile, damage_told, read_gguf
from gptcli.models.importers.gguf_vocabulary import vocabulary_of
from gptcli.models.importers.rotary_layout import to_halves

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt2")
_HINT = "convert the original weights, or name another file"
_Number = TypeVar("_Number", int, float)
_LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_BLOCK = re.compile(r"blk\.(\d{1,8})\.(.+)")


class Gguf:
    """A file that begins with GGUF's magic."""

    name = "GGUF"

    def recognises(self, path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == MAGIC or path.suffix == ".gguf"

    def open(self, path: Path) -> ForeignModel:
        with damage_told(path):
            return self._open(path)

    def _open(self, path: Path) -> ForeignModel:
        file = read_gguf(path)
        config = _config(file)
        stored = _stored(file, config)
        kinds = sorted({info.type for info in file.tensors.values()})
        tokenizer, why_not = vocabulary_of(file)
        return ForeignModel(
            form=f"{config.model_type}, {self.name}, {'+'.join(kinds)}",
            config=config,
            tensors=fit(stored, config, str(path)),
            files=(path,),
            tokenizer=tokenizer,
            no_tokenizer=why_not,
        )


def _config(file: GgufFile) -> ModelConfig:
    architecture = file.text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ArtifactError(
            f"{file.path}: the architecture {str(architecture)[:80]!r} is not supported",
            f"supported: {', '.join(ARCHITECTURES)}",
        )
    _refuse_unsupported(file, architecture)
    raw = _gpt2_config(file) if architecture == "gpt2" else _llama_config(file, architecture)
    for role, key in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("pad", "padding_token_id")):
        number = file.integer(f"tokenizer.ggml.{key}")
        raw[f"{role}_token_id"] = number if number is not None and 0 <= number < raw["vocab_size"] else None
    try:
        return config_from_hf(raw)
    except ArtifactError as error:
        raise ArtifactError(f"{file.path}: {error.message}", error.hint) from error


def _refuse_unsupported(file: GgufFile, architecture: str) -> None:
    path = file.path
    if not file.tensors:
        raise ArtifactError(f"{path} holds a vocabulary and no weights", _HINT)
    if file.integer("split.count") not in (None, 0, 1):
        raise ArtifactError(f"{path} is one part of several", "join them first: llama-gguf-split --merge FIRST OUT")
    _refuse_scaled_positions(file, architecture)
    if "rope_freqs.weight" in file.tensors:
        raise ArtifactError(f"{path}: rope scaling by its own frequencies (rope_freqs) is not supported", _HINT)
    if file.integer(f"{architecture}.expert_count"):
        raise ArtifactError(f"{path}: a mixture of experts is not supported", _HINT)
    window, context = file.integer(f"{architecture}.attention.sliding_window"), _size(file, "context_length")
    if window and window < context:
        raise ArtifactError(
            f"{path}: sliding-window attention (sliding_window={window} below context_length={context}) is not "
            "supported",
            _HINT,
        )


def _refuse_scaled_positions(file: GgufFile, architecture: str) -> None:
    """llama.cpp scales by rope.scaling.factor, or by the older rope.scale_linear where that is absent; 0 is 1."""
    scaling = file.text(f"{architecture}.rope.scaling.type") or "none"
    factor = file.number(f"{architecture}.rope.scaling.factor")
    if scaling != "none" and factor not in (None, 1.0):
        raise ArtifactError(f"{file.path}: rope scaling of type {scaling[:80]!r} is not supported", _HINT)
    linear = file.number(f"{architecture}.rope.scale_linear")
    if linear not in (None, 0.0, 1.0):
        raise ArtifactError(f"{file.path}: rope scaling (rope.scale_linear={linear}) is not supported", _HINT)


def _size(file: GgufFile, key: str, default: int | None = None) -> int:
    """A whole number of the metadata, under the architecture's name. Raises ArtifactError where it is none."""
    key = f"{file.text('general.architecture')}.{key}"
    value = file.integer(key)
    return _there(file, key, default if value is None else value)


def _number(file: GgufFile, key: str, default: float | None = None) -> float:
    """A number of the metadata, under the architecture's name. Raises ArtifactError where it is none."""
    key = f"{file.text('general.architecture')}.{key}"
    value = file.number(key)
    return _there(file, key, default if value is None else value)


def _there(file: GgufFile, key: str, value: _Number | None) -> _Number:
    if value is None:
        raise ArtifactError(f"{file.path}: {key} is missing", "fetch it again from its source")
    return value


def _rows(file: GgufFile) -> int:
    info = file.tensors.get("token_embd.weight")
    if info is None or len(info.shape) != 2:
        raise ArtifactError(
            f"{file.path}: token_embd.weight is missing, or no matrix", "fetch it again from its source"
        )
    return info.shape[0]


def _llama_config(file: GgufFile, architecture: str) -> dict[str, Any]:
    heads = _size(file, "attention.head_count")
    width = _size(file, "embedding_length")
    head_dim = _size(file, "attention.key_length", width // heads if heads else 0)
    others = [_size(file, key, head_dim) for key in ("rope.dimension_count", "attention.value_length")]
    if any(other != head_dim for other in others):
        raise ArtifactError(f"{file.path}: heads that are rotated in part are not supported", _HINT)
    return {
        "model_type": architecture,
        "vocab_size": _rows(file),
        "hidden_size": width,
        "intermediate_size": _size(file, "feed_forward_length"),
        "num_hidden_layers": _size(file, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _size(file, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": _size(file, "context_length"),
        "rms_norm_eps": _number(file, "attention.layer_norm_rms_epsilon"),
        "rope_theta": _number(file, "rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
    }


def _gpt2_config(file: GgufFile) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": _rows(file),
        "n_positions": _size(file, "context_length"),
        "n_embd": _size(file, "embedding_length"),
        "n_layer": _size(file, "block_count"),
        "n_head": _size(file, "attention.head_count"),
        "n_inner": _size(file, "feed_forward_length"),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": _number(file, "attention.layer_norm_epsilon"),
        "tie_word_embeddings": _is_tied(file),
    }


def _is_tied(file: GgufFile) -> bool:
    """Whether a GPT-2's head is its embedding: converters used to write it twice."""
    head, embedding = file.tensors.get("output.weight"), file.tensors["token_embd.weight"]
    if head is None:
        return True
    return head.shape == embedding.shape and torch.equal(
        file.read("output.weight").float(), file.read("token_embd.weight").float()
    )


def _stored(file: GgufFile, config: ModelConfig) -> dict[str, StoredTensor]:
    """The tensors under Hugging Face's names; a gpt2's matrices are turned, a llama's queries and keys permuted."""
    is_gpt2 = config.model_type == "gpt2"
    stored = {}
    for name, info in file.tensors.items():
        target = _name(name, _GPT2 if is_gpt2 else _LLAMA, "transformer.h" if is_gpt2 else "model.layers")
        if target == "lm_head.weight" and config.tie_word_embeddings:
            continue
        heads = _heads(target, config)
        turned = is_gpt2 and len(info.shape) == 2 and ".h." in target
        shape = info.shape[::-1] if turned else info.shape
        stored[target] = StoredTensor(shape, READABLE[info.type], _reader(file, name, heads, turned))
    return stored


def _reader(file: GgufFile, name: str, heads: int, turned: bool) -> Any:
    def read() -> Tensor:
        tensor = file.read(name)
        if turned:
            return tensor.t().contiguous()
        return to_halves(tensor, heads) if heads else tensor

    return read


def _name(name: str, table: dict[str, str], layers: str) -> str:
    """Hugging Face's name, or the name itself where there is none, which then fits no model."""
    block = _BLOCK.fullmatch(name)
    stem, dot, kind = (block[2] if block else name).rpartition(".")
    if stem not in table or not dot:
        return name
    return f"{layers}.{int(block[1])}.{table[stem]}.{kind}" if block else f"{table[stem]}.{kind}"


def _heads(name: str, config: ModelConfig) -> int:
    """By how many heads the rows of a tensor were permuted when it was converted; 0: not at all."""
    if not isinstance(config, LlamaConfig) or config.model_type != "llama":
        return 0
    if ".q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".k_proj." in name else 0
