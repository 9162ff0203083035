from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Inputs
from gptcli.errors import ArtifactError, ResourceError
from gptcli.models import load, weights
from gptcli.models.config import Gpt2Config, LlamaConfig
from gptcli.models.family import config_from_hf
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.models.load import load_adapter, load_model, save_adapter, save_model, stored_dtype
from gptcli.models.lora import LoraConfig, apply_lora

CONFIG = LlamaConfig("qwen3", 50, 16, 24, 1, 4, 2, 4, 32, eos_token_id=2)


@pytest.fixture
def model() -> Llama:
    made = Llama(CONFIG).eval()
    init_weights(made, torch.Generator().manual_seed(0))
    return made


@pytest.fixture
def directory(model, tmp_path):
    save_model(model.state_dict(), CONFIG, tmp_path / "model")
    return tmp_path / "model"


def test_saving_twice_gives_the_same_bytes(model, directory, tmp_path):
    shuffled = dict(reversed(model.state_dict().items()))
    save_model(shuffled, CONFIG, tmp_path / "again")
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["config.json", "generation_config.json", "model.safetensors"]
    assert all((directory / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    header = (directory / "model.safetensors").read_bytes()
    head = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    assert head["__metadata__"] == {"format": "pt"}


def test_a_cast_is_stored_and_told(model, tmp_path):
    save_model(model.state_dict(), CONFIG, tmp_path, torch.bfloat16, stop_ids=(5, 2))
    assert stored_dtype(tmp_path) == torch.bfloat16
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [5, 2]
    assert load_model(tmp_path).model.norm.weight.dtype == torch.float32
    assert load_model(tmp_path, dtype=torch.bfloat16).model.norm.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda t: t.update({"model.extra": torch.ones(1)}), "model.extra is not expected"),
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"shape \[3\], not \[16\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(directory, damage, words):
    tensors = load_file(directory / "model.safetensors")
    damage(tensors)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(ArtifactError, match=words):
        load_model(directory)


def test_a_tied_model_may_carry_its_head_if_it_is_the_embedding(tmp_path):
    config = LlamaConfig("llama", 50, 16, 24, 1, 4, 2, 4, 32, tie_word_embeddings=True)
    model = Llama(config)
    init_weights(model, torch.Generator().manual_seed(0))
    state = model.state_dict()
    save_model(state, config, tmp_path)
    table = state["model.embed_tokens.weight"]
    derived = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    save_file({**state, **derived, "lm_head.weight": table.clone()}, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path).head_weight, table)
    save_file({**state, "lm_head.weight": table + 1}, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match="differs from the embedding"):
        load_model(tmp_path)


def test_broken_directories_are_refused_in_one_sentence(directory):
    weight_file = directory / "model.safetensors"
    whole = weight_file.read_bytes()
    weight_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="can't be read"):
        load_model(directory)
    weight_file.rename(directory / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"no archive of torch\.save"):
        load_model(directory)
    (directory / "pytorch_model.bin").unlink()
    with pytest.raises(ArtifactError, match=r"has no model\.safetensors"):
        load_model(directory)
    (directory / "config.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="no JSON object"):
        load_model(directory)
    (directory / "config.json").write_text("[" * 200_000)
    with pytest.raises(ArtifactError, match=r"config\.json can't be read"):
        load_model(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        load_model(directory)


SHAPES = [CONFIG, Gpt2Config(50, 32, 16, 1, 4)]


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.model_type)
def test_an_epsilon_of_zero_is_no_absent_one(config):
    key = "layer_norm_epsilon" if config.model_type == "gpt2" else "rms_norm_eps"
    read = [getattr(config_from_hf({**config.to_hf(), key: value}), key) for value in (0, 0.5, None)]
    assert read == [0.0, 0.5, 1e-5 if config.model_type == "gpt2" else 1e-6]


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.model_type)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0], ids=str)
@pytest.mark.parametrize("key", ["final_logit_softcapping", "epsilon"])
def test_numbers_without_bound_are_refused(config, key, value):
    if key == "epsilon":
        key = "layer_norm_epsilon" if config.model_type == "gpt2" else "rms_norm_eps"
    with pytest.raises(ArtifactError, match=key):
        config_from_hf({**config.to_hf(), key: value})


@pytest.mark.parametrize("theta", [float("nan"), float("inf"), -1.0], ids=str)
def test_a_rotation_without_a_base_is_refused(theta):
    with pytest.raises(ArtifactError, match="rope_theta"):
        config_from_hf({**CONFIG.to_hf(), "rope_parameters": None, "rope_theta": theta})


def test_no_heads_are_refused_by_name():
    raw = {**CONFIG.to_hf(), "model_type": "llama", "num_attention_heads": 0, "head_dim": None}
    with pytest.raises(ArtifactError, match="num_attention_heads is 0, must be at least 1"):
        config_from_hf(raw)


def test_one_flipped_byte_is_found_where_there_is_a_manifest(model, tmp_path):
    place = tmp_path / "step-00000001"
    build = Build.open(place, kind="checkpoint", spec={}, inputs=Inputs(), say=print)
    save_model(model.state_dict(), CONFIG, build.directory)
    build.commit({}, {})
    load_model(place)
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (place / "model.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        load_model(place)


def test_an_adapter_of_another_base_is_refused(model, directory, tmp_path):
    lora = LoraConfig(4, token_ids=(4, 5))
    apply_lora(model, lora, torch.Generator())
    save_adapter(model, lora, "runs/base", tmp_path / "adapter")
    other = Llama(LlamaConfig("qwen3", 50, 20, 24, 1, 4, 2, 4, 32))
    with pytest.raises(ArtifactError, match="does not fit its base"):
        load_adapter(other, tmp_path / "adapter")
    assert load_adapter(load_model(directory), tmp_path / "adapter") == lora


def test_a_full_disk_is_a_resource_error(model, tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        raise weights.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(ResourceError, match="no space left"):
        save_model(model.state_dict(), CONFIG, tmp_path)


def test_layers_that_an_adapter_file_names_in_vain_are_the_file_s_fault(model, directory, tmp_path):
    lora = LoraConfig(4)
    apply_lora(model, lora, torch.Generator())
    save_adapter(model, lora, "runs/base", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["nope"]}))
    with pytest.raises(ArtifactError, match="adapter: the model has no linear layer nope"):
        load_adapter(load_model(directory), tmp_path / "adapter")


def test_files_that_were_checked_are_not_hashed_again(model, tmp_path, monkeypatch):
    build = Build.open(tmp_path / "one", kind="checkpoint", spec={}, inputs=Inputs(), say=print)
    save_model(model.state_dict(), CONFIG, build.directory)
    build.commit({}, {})
    hashed = []
    monkeypatch.setattr(load.durable, "sha256_file", lambda path: hashed.append(path.name) or "")
    load_model(tmp_path / "one", checked=True)
    assert hashed == []
    with pytest.raises(ArtifactError, match="damaged"):
        load_model(tmp_path / "one")
