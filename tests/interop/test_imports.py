"""What transformers saves, opened by us: the same logits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.models.importers import open_foreign
from gptcli.models.load import load_model

transformers = pytest.importorskip("transformers")

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}


def config_of(model_type: str, tied: bool) -> Any:
    """Special ids are left out where the type's own would be outside so small a vocabulary."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    if model_type == "gpt2":
        return transformers.GPT2Config(**GPT2, **ids)
    more: dict[str, Any] = {"sliding_window": None} if model_type == "mistral" else {}
    more |= {"head_dim": 16} if model_type == "qwen3" else {}
    return getattr(transformers, f"{CLASSES[model_type]}Config")(**SIZES, **ids, **more, tie_word_embeddings=tied)


def random_model(model_type: str, tied: bool = False) -> Any:
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config_of(model_type, tied)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def far(model: Any, directory: Path) -> float:
    """The largest difference between transformers' logits and ours."""
    ids = torch.randint(0, model.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = model(ids).logits, load_model(directory)(ids)
    assert want.std() > 0.05
    return float((want.float() - got).abs().max())


FAMILIES = [*((name, False) for name in CLASSES), ("llama", True), ("qwen2", True), ("gpt2", True)]


@pytest.mark.parametrize(("model_type", "tied"), FAMILIES)
@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "bin_sharded", "bare"])
def test_saved_models_give_the_same_logits(model_type, tied, layout, tmp_path):
    model = random_model(model_type, tied)
    if layout in ("safetensors", "sharded"):
        model.save_pretrained(tmp_path, max_shard_size="20KB" if layout == "sharded" else "1GB")
    elif layout == "bare":  # the model without its head, whose names have no prefix; then only a tied head is known
        if not tied:
            pytest.skip("the head is not stored")
        model.base_model.save_pretrained(tmp_path)
    else:
        write_bin(model, tmp_path, sharded=layout == "bin_sharded")
    assert (len(list(tmp_path.glob("*-of-*"))) > 2) == ("sharded" in layout)
    assert far(model, tmp_path) < 1e-4


def write_bin(model: Any, directory: Path, sharded: bool) -> None:
    """As transformers 4 wrote it: the whole state dict, a tied head and GPT-2's masks included."""
    model.config.save_pretrained(directory)
    state = dict(model.state_dict())
    if model.config.model_type == "gpt2":
        masks = torch.tril(torch.ones(64, 64, dtype=torch.bool)).view(1, 1, 64, 64)
        state |= {f"transformer.h.{layer}.attn.bias": masks for layer in range(3)}
    if not sharded:
        torch.save(state, directory / "pytorch_model.bin")
        return
    from gptcli.artifacts.durable import write_json

    names = [f"pytorch_model-0000{number}-of-00003.bin" for number in (1, 2, 3)]
    places = {name: names[at % 3] for at, name in enumerate(state)}
    for file in names:
        torch.save({name: state[name] for name in state if places[name] == file}, directory / file)
    write_json(directory / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_are_the_same_numbers(dtype, tmp_path):
    random_model("qwen3").to(dtype).save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert far(again, tmp_path) < 1e-4


@pytest.mark.parametrize("name", ["stories260K-hf", "ckpt-hf-tiny-gpt2"])
def test_published_directories(name, data_dir, tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(data_dir / name).eval()
    ids = torch.arange(20)[None] % model.config.vocab_size
    with torch.no_grad():
        want, got = model(ids).logits, load_model(data_dir / name)(ids)
    assert (want - got).abs().max() < 1e-4
    shutil.copytree(data_dir / name, tmp_path / "model")
    assert open_foreign(tmp_path / "model").tokenizer is not None


def test_llama2c_s_file_gives_the_logits_of_the_directory(data_dir):
    model = open_foreign(data_dir / "ckpt-stories260K" / "stories260K.bin")
    ours = load_model(data_dir / "stories260K-hf")
    read = {name: tensor.read() for name, tensor in model.tensors.items()}
    assert all(torch.equal(read[name], tensor) for name, tensor in ours.state_dict().items())
    ids, want = [1], [403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267]
    with torch.no_grad():
        for _ in want:
            ids.append(int(ours(torch.tensor([ids]))[0, -1].argmax()))
    assert ids[1:] == want
