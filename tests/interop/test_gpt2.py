"""GPT-2 model directories: ours opened by transformers, theirs by us, the same logits, gradients and texts."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from gptcli.inference.generate import generate
from gptcli.inference.sampling import Sampling
from gptcli.models.config import Gpt2Config
from gptcli.models.gpt2 import Gpt2
from gptcli.models.init import init_weights
from gptcli.models.load import load_adapter, load_model, read_config, save_adapter, save_model, stored_dtype
from gptcli.models.lora import ALL_CONV1D, LoraConfig, apply_lora, merge

transformers = pytest.importorskip("transformers")

SHAPES = [
    {},
    {"tie_word_embeddings": False},
    {"n_inner": 56, "activation_function": "gelu", "layer_norm_epsilon": 1e-3},
    {"activation_function": "gelu_pytorch_tanh", "n_head": 1},
]


def small_config(**changes: object) -> Gpt2Config:
    sizes: dict[str, object] = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return Gpt2Config(**{**sizes, "bos_token_id": 2, "eos_token_id": 2, **changes})  # type: ignore[arg-type]


def random_model(config: Gpt2Config, seed: int = 0) -> Gpt2:
    """Every tensor away from its start, gains, biases and zeroed projections included."""
    generator = torch.Generator().manual_seed(seed)
    model = Gpt2(config).eval()
    init_weights(model, generator, embedding_std=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator))
    return model


def token_ids(config: Gpt2Config) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (3, 48), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_transformers_gives_our_logits_and_gradients(changes, tmp_path):
    config = small_config(**changes)
    model = random_model(config)
    save_model(model.state_dict(), config, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    ids = token_ids(config)
    want, got = theirs(ids).logits, model(ids)
    assert want.std() > 0.5
    assert (want - got).abs().max() < 1e-4
    for logits in (want, got):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    slopes = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert slopes.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad - slopes[name]).abs().max() < 1e-5 * max(1.0, slopes[name].abs().max()), name
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids), got)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_we_open_what_transformers_saves(changes, tmp_path):
    config = small_config(**changes)
    raw = {key: value for key, value in config.to_hf().items() if key not in ("architectures", "dtype", "torch_dtype")}
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**raw)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ids = token_ids(config)
    ours = load_model(tmp_path)
    assert isinstance(ours, Gpt2)
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-4
    assert read_config(tmp_path) == config


def test_a_published_checkpoint(data_dir, tmp_path):
    """Saved by transformers 4.36 without its head, so without the prefix of the names."""
    home = data_dir / "ckpt-hf-tiny-gpt2"
    ours, theirs = load_model(home), transformers.AutoModelForCausalLM.from_pretrained(home).eval()
    ids = torch.arange(84).remainder(21).view(2, 42)
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-4
    save_model(ours.state_dict(), ours.config, tmp_path, stored_dtype(home))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)


def test_attention_masks_of_old_files_are_passed_over(tmp_path):
    config = small_config()
    model = random_model(config)
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(2)}
    masks |= {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    save_model(model.state_dict() | masks, config, tmp_path)
    ids = token_ids(config)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids), model(ids))


def test_both_write_the_same_text(tmp_path):
    config = small_config()
    model = random_model(config)
    save_model(model.state_dict(), config, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert theirs.generation_config.eos_token_id == 2
    prompt = [5, 6, 7]
    ours = generate(model, prompt, Sampling(temperature=0, max_tokens=40), {2})
    want = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=40, pad_token_id=2)[0, 3:].tolist()
    assert ours == [token for token in want if token != 2]
    assert len(ours) > 3


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_adapters_both_ways(tied, tmp_path):
    peft = pytest.importorskip("peft")
    config = small_config(tie_word_embeddings=tied)
    save_model(random_model(config).state_dict(), config, tmp_path / "base")
    ours = load_model(tmp_path / "base")
    lora = LoraConfig(4, 8.0, token_ids=(7, 9), fan_in_fan_out=True)
    assert lora.target_modules == ALL_CONV1D
    apply_lora(ours, lora, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3)
    save_adapter(ours, lora, "../base", tmp_path / "ours")
    ids = token_ids(config)
    ids[1, :4] = torch.tensor([7, 9, 9, 7])
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    whole = Gpt2(config).eval()
    whole.load_state_dict(merge(ours))
    with torch.no_grad():
        got = ours(ids)
        assert (load_model(tmp_path / "base")(ids) - got).abs().max() > 0.5
        assert (theirs(ids).logits - got).abs().max() < 1e-4
        assert (whole(ids) - got).abs().max() < 1e-4
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_model(tmp_path / "base")
    assert load_adapter(again, tmp_path / "theirs") == lora
    with torch.no_grad():
        assert torch.equal(again(ids), got)


def test_what_peft_calls_all_linear(tmp_path):
    peft = pytest.importorskip("peft")
    base = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=1))
    theirs = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear", fan_in_fan_out=True, r=2))
    theirs.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "adapter_config.json").read_text())
    raw["target_modules"] = "all-linear"
    assert set(LoraConfig.from_peft(raw).target_modules) == {
        name.split(".")[-1] for name, module in theirs.named_modules() if hasattr(module, "lora_A")
    }
