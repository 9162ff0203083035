from __future__ import annotations

import dataclasses

import pytest
import torch

from gptcli.errors import ArtifactError, SpecError
from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama

SMALL = LlamaConfig("qwen3", 50, 16, 24, 2, 4, 2, 4, 32, eos_token_id=2)
IDS = torch.tensor([[1, 7, 3, 49, 0, 7], [5, 5, 5, 2, 1, 8]])


def started(config: LlamaConfig, seed: int = 0) -> Llama:
    model = Llama(config).eval()
    init_weights(model, torch.Generator().manual_seed(seed))
    return model


def test_a_model_from_scratch_starts_indifferent():
    model = started(SMALL)
    assert torch.equal(model(IDS), torch.zeros(2, 6, 50))  # a zero head: every token as likely as any
    weights = dict(model.named_parameters())
    assert weights["model.embed_tokens.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    matrix = weights["model.layers.0.mlp.gate_proj.weight"]
    assert matrix.std().item() == pytest.approx(16**-0.5, rel=0.1) and matrix.abs().max() <= 3 * 16**-0.5
    assert all(torch.equal(gain, torch.ones_like(gain)) for gain in weights.values() if gain.ndim == 1)
    assert all(
        not weights[f"model.layers.{layer}.{name}.weight"].any()
        for layer in (0, 1)
        for name in ("self_attn.o_proj", "mlp.down_proj")
    )


def test_a_seed_decides_the_start_also_by_way_of_the_meta_device():
    with torch.device("meta"):
        late = Llama(SMALL)
    late = late.to_empty(device="cpu")
    init_weights(late, torch.Generator().manual_seed(3))
    wide, other = started(SMALL, 3), started(SMALL, 4)
    for name, tensor in wide.state_dict().items():
        assert torch.equal(tensor, late.state_dict()[name])
    assert not torch.equal(wide.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert torch.equal(late.model.rotary.cos, wide.model.rotary.cos)
    assert torch.equal(late.hidden(IDS), wide.hidden(IDS))


def test_rotary_tables_stay_fp32_whatever_the_model_is_cast_to():
    model = started(SMALL)
    table = model.model.rotary.sin.clone()
    model = model.to(torch.bfloat16)
    assert model.model.rotary.sin.dtype == torch.float32 and torch.equal(model.model.rotary.sin, table)
    assert model(IDS).dtype == torch.bfloat16
    assert not any("rotary" in name for name in model.state_dict())


def test_positions_default_to_counting_and_only_differences_matter():
    model = started(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    counted = torch.arange(6).expand(2, 6)
    assert torch.equal(model.hidden(IDS), model.hidden(IDS, counted))
    assert torch.allclose(model.hidden(IDS), model.hidden(IDS, counted + 11), atol=1e-5)
    assert not torch.allclose(model.hidden(IDS), model.hidden(IDS, counted * 2), atol=1e-3)


def test_attention_is_causal():
    model = started(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    changed = IDS.clone()
    changed[:, 4] = 30
    assert torch.equal(model(IDS)[:, :4], model(changed)[:, :4])
    assert not torch.equal(model(IDS)[:, 4:], model(changed)[:, 4:])


@pytest.mark.parametrize("tied", [True, False])
def test_head_and_head_weight_are_one(tied):
    model = started(dataclasses.replace(SMALL, tie_word_embeddings=tied))
    assert ("lm_head.weight" in model.state_dict()) is not tied
    hidden = model.hidden(IDS)
    assert torch.equal(model.head(hidden), hidden @ model.head_weight.t())


def test_dropout_acts_in_training_alone():
    model = Llama(SMALL, dropout=0.5)
    init_weights(model, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert not torch.equal(model.train().hidden(IDS), model.hidden(IDS))
    assert torch.equal(model.eval().hidden(IDS), started(SMALL).hidden(IDS))


def test_bf16_autocast_gives_every_parameter_a_gradient():
    model = started(dataclasses.replace(SMALL, attention_bias=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(IDS).float().logsumexp(-1).mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.any() for p in model.parameters())


def test_too_long_a_sequence_is_refused():
    with pytest.raises(SpecError, match="max_position_embeddings=32"):
        started(SMALL).hidden(torch.zeros(1, 33, dtype=torch.int64))


def test_config_survives_its_own_json():
    for model_type in ("llama", "mistral", "qwen2", "qwen3"):
        config = dataclasses.replace(SMALL, model_type=model_type, eos_token_id=(2, 5), rope_theta=5e5)
        assert LlamaConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"use_sliding_window": True, "sliding_window": 8}, "sliding"),
        ({"model_type": "mistral", "sliding_window": 8}, "sliding"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 5}, "odd"),
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": "many"}, "wrong type"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change, words):
    with pytest.raises(ArtifactError, match=words):
        LlamaConfig.from_hf({**SMALL.to_hf(), **change})


def test_both_spellings_of_rope_theta_are_read():
    raw = {**SMALL.to_hf(), "rope_theta": 7e5}
    del raw["rope_parameters"]
    assert LlamaConfig.from_hf(raw).rope_theta == 7e5
    new = {**SMALL.to_hf(), "rope_parameters": {"rope_type": "default", "rope_theta": 8e5}}
    del new["rope_theta"]
    assert LlamaConfig.from_hf(new).rope_theta == 8e5
    unused = {**SMALL.to_hf(), "sliding_window": 8, "use_sliding_window": False}
    assert LlamaConfig.from_hf(unused) == SMALL


def test_the_training_path_compiles_as_one_graph():
    torch._dynamo.reset()
    model = started(SMALL).train()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        model.lm_head.weight.normal_()
    assert torch.equal(compiled(IDS), model(IDS))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": 5},
        {"rope_parameters": "x"},
        {"model_type": ["llama"]},
        {"vocab_size": float("inf")},
        {"eos_token_id": "</s>"},
        {"eos_token_id": [2, None]},
        {"partial_rotary_factor": [0.5]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_values_of_another_type_are_refused(change):
    with pytest.raises(ArtifactError, match=next(iter(change)) if "rope" in str(change) else "type"):
        LlamaConfig.from_hf({**SMALL.to_hf(), **change})
