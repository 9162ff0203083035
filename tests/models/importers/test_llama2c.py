from __future__ import annotations

import dataclasses
import resource
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gptcli.errors import ArtifactError
from gptcli.models.importers import open_foreign
from gptcli.models.importers.rotary_layout import to_halves, to_pairs
from gptcli.tokenizer import Tokenizer

from .conftest import config_of, random_state

GROUP = 32
LEGACY, FLOATS, INTS = 0, 1, 2


def layers(state: dict[str, Tensor], name: str) -> list[Tensor]:
    return [state[f"model.layers.{layer}.{name}.weight"] for layer in range(2)]


def parts(config, state: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """The tensors as llama2.c groups them, queries and keys in its order."""
    found = {
        "norm1": layers(state, "input_layernorm"),
        "norm2": layers(state, "post_attention_layernorm"),
        "norm": [state["model.norm.weight"]],
        "embedding": [state["model.embed_tokens.weight"]],
        "q": [to_pairs(each, config.num_attention_heads) for each in layers(state, "self_attn.q_proj")],
        "k": [to_pairs(each, config.num_key_value_heads) for each in layers(state, "self_attn.k_proj")],
    }
    for short, name in (
        ("v", "self_attn.v"),
        ("o", "self_attn.o"),
        ("1", "mlp.gate"),
        ("2", "mlp.down"),
        ("3", "mlp.up"),
    ):
        found[short] = layers(state, f"{name}_proj")
    return found | {"head": [] if config.tie_word_embeddings else [state["lm_head.weight"]]}


def quantised(tensor: Tensor) -> tuple[Tensor, Tensor]:
    rows = tensor.reshape(-1, GROUP)
    scales = rows.abs().max(dim=1).values / 127
    return torch.round(rows / scales[:, None]).to(torch.int8), scales


def file_bytes(config, state: dict[str, Tensor], version: int) -> bytes:
    """A file as llama2.c's export.py writes it."""
    vocab = -config.vocab_size if version == LEGACY and not config.tie_word_embeddings else config.vocab_size
    sizes = struct.pack(
        "<7i",
        *(config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads),
        *(config.num_key_value_heads, vocab, config.max_position_embeddings),
    )
    found = parts(config, state)
    if version == LEGACY:
        phases = [torch.zeros(2 * config.max_position_embeddings * config.head_dim // 2)]
        order = ["embedding", "norm1", *"qkvo", "norm2", *"123", "norm"]
        tensors = [each for name in order for each in found[name]] + phases + found["head"]
        return sizes + b"".join(tensor.numpy().tobytes() for tensor in tensors)
    head = struct.pack("<Ii", 0x616B3432, version) + sizes + bytes([config.tie_word_embeddings])
    head += struct.pack("<i", GROUP) if version == INTS else b""
    out = [head.ljust(256, b"\0")]
    for name in ("norm1", "norm2", "norm", "embedding", *"qkvo123", "head"):
        for tensor in found[name]:
            both = [tensor] if version == FLOATS or "norm" in name else quantised(tensor)
            out += [each.numpy().tobytes() for each in both]
    return b"".join(out)


def rounded(name: str, tensor: Tensor, config) -> Tensor:
    """What is left of a tensor after version 2's quantisation, in Hugging Face's order."""
    if "norm" in name:
        return tensor
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads if "k_proj" in name else 0
    values, scales = quantised(to_pairs(tensor, heads) if heads else tensor)
    whole = (values.float() * scales[:, None]).view(tensor.shape)
    return to_halves(whole, heads) if heads else whole


@pytest.mark.parametrize("version", [LEGACY, FLOATS, INTS])
@pytest.mark.parametrize("is_tied", [False, True])
def test_every_version_gives_the_weights_it_was_made_from(version, is_tied, tmp_path):
    config = dataclasses.replace(config_of("llama"), tie_word_embeddings=is_tied)
    state = random_state(config)
    path = tmp_path / "model.bin"
    path.write_bytes(file_bytes(config, state, version))
    model = open_foreign(path)
    assert model.config == config
    for name, tensor in model.tensors.items():
        want = rounded(name, state[name], config) if version == INTS else state[name]
        assert torch.equal(tensor.read(), want), name
    assert model.tensors.keys() == state.keys()


def test_stories260k_is_byte_for_byte_the_hugging_face_directory(data_dir):
    model = open_foreign(data_dir / "ckpt-stories260K" / "stories260K.bin")
    want = load_file(data_dir / "stories260K-hf" / "model.safetensors")
    assert model.tensors.keys() == want.keys()
    for name, tensor in model.tensors.items():
        assert tensor.read().numpy().tobytes() == want[name].numpy().tobytes(), name
    assert model.config == open_foreign(data_dir / "stories260K-hf").config


def test_its_tokenizer_gives_the_ids_of_the_directory_s(data_dir, tmp_path):
    model = open_foreign(data_dir / "ckpt-stories260K" / "stories260K.bin")
    assert model.tokenizer is not None
    model.tokenizer.write(tmp_path)
    ours, want = Tokenizer.load(tmp_path), Tokenizer.load(data_dir / "stories260K-hf")
    stories = (data_dir / "tinystories-sample" / "ORIGIN.txt").read_text(encoding="utf-8")[:20_000]
    for text in ["Once upon a time", "café \U0001f600\n\ttabs", "<s> </s> <0x0A>", *stories.split("\n")]:
        folded = " ".join(text.split(" "))
        if "  " not in folded and folded == folded.strip(" "):  # which the other model folds
            assert ours.encode(text) == want.encode(text), text
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.vocab_size) == (1, 2, None, 512)
    assert [ours.piece(number) for number in range(512)] == [want.piece(number) for number in range(512)]
    assert ours.decode(ours.encode("two  spaces ")) == "two  spaces "


def test_a_tokenizer_of_another_size_beside_it_is_not_taken(data_dir, tmp_path):
    config = config_of("llama")
    (tmp_path / "model.bin").write_bytes(file_bytes(config, random_state(config), FLOATS))
    (tmp_path / "tok512.bin").write_bytes((data_dir / "ckpt-stories260K" / "tok512.bin").read_bytes())
    model = open_foreign(tmp_path / "model.bin")
    assert model.tokenizer is None and "no tokenizer of 96 ids" in model.no_tokenizer


def test_hugging_face_s_tokenizer_beside_it_is_taken_first(data_dir, tmp_path):
    for name in ("stories260K.bin", "tok512.bin"):
        (tmp_path / name).write_bytes((data_dir / "ckpt-stories260K" / name).read_bytes())
    (tmp_path / "tokenizer.model").write_bytes((data_dir / "stories260K-hf" / "tokenizer.model").read_bytes())
    model = open_foreign(tmp_path / "stories260K.bin")
    assert model.tokenizer is not None
    assert [path.name for path in model.tokenizer.files] == ["tokenizer.model"]


@pytest.mark.parametrize("version", [LEGACY, FLOATS, INTS])
def test_damaged_files_are_refused_with_the_place(version, tmp_path):
    config = config_of("llama")
    whole = file_bytes(config, random_state(config), version)
    path = tmp_path / "model.bin"
    for part in range(16):
        path.write_bytes(whole[: len(whole) * part // 16])
        with pytest.raises(ArtifactError, match=r"model\.bin ends after"):
            open_foreign(path)
    path.write_bytes(whole + b"\0" * 4)
    with pytest.raises(ArtifactError, match="4 bytes more"):
        open_foreign(path)


@pytest.mark.parametrize("version", [LEGACY, FLOATS, INTS])
def test_headers_of_any_bytes_are_refused_or_whole(version, tmp_path):
    config = config_of("llama")
    whole = file_bytes(config, random_state(config), version)
    path = tmp_path / "model.bin"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    draw = np.random.default_rng(0)
    for at in range({LEGACY: 28, FLOATS: 37, INTS: 41}[version]):
        for value in {0, 0x7F, 0x80, 0xFF, int(draw.integers(256))} - {whole[at]}:
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                model = open_foreign(path)
            except ArtifactError:
                continue
            assert all(tensor.read().shape == tensor.shape for tensor in model.tensors.values())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_other_bin_files_are_no_models(tmp_path):
    path = tmp_path / "noise.bin"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ArtifactError, match=r"no llama2\.c file"):
        open_foreign(path)
    path.write_bytes(struct.pack("<Ii", 0x616B3432, 3) + bytes(248))
    with pytest.raises(ArtifactError, match="version 3"):
        open_foreign(path)
