"""The GPT-2 module: its names, positions, masks, cache, precision and config."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gptcli.errors import ArtifactError, SpecError
from gptcli.inference.cache import Cache
from gptcli.inference.generate import generate
from gptcli.inference.reader import read
from gptcli.inference.sampling import Sampling
from gptcli.models.config import Gpt2Config
from gptcli.models.family import architectures, build_model, config_from_hf, sized_config
from gptcli.models.gpt2 import Gpt2
from gptcli.models.init import init_weights
from gptcli.models.naming import blocks_of, inputs_first, is_output_projection, kind_of
from gptcli.pretrain.spec import PretrainSpec, count_parameters
from gptcli.training.throughput import flops_per_token

SMALL = Gpt2Config(50, 32, 16, 2, 4, eos_token_id=2)
WITHOUT_A_HEAD_TIED = dataclasses.replace(SMALL, tie_word_embeddings=False)
IDS = torch.randint(0, 50, (2, 11), generator=torch.Generator().manual_seed(1))


def started(config: Gpt2Config, seed: int = 0) -> Gpt2:
    """Every tensor away from its start."""
    model = Gpt2(config).eval()
    generator = torch.Generator().manual_seed(seed)
    init_weights(model, generator, embedding_std=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.1, generator=generator))
    return model


def test_the_state_is_a_checkpoint():
    state = started(WITHOUT_A_HEAD_TIED).state_dict()
    assert state["transformer.h.1.attn.c_attn.weight"].shape == (16, 48)
    assert state["transformer.h.0.mlp.c_fc.weight"].shape == (16, 64)
    assert state["transformer.h.0.mlp.c_proj.weight"].shape == (64, 16)
    assert state["transformer.wpe.weight"].shape == (32, 16)
    assert state["lm_head.weight"].shape == (50, 16)
    assert not any("mask" in name for name in state)
    assert list(state)[:2] == ["transformer.wte.weight", "transformer.wpe.weight"]


def test_weights_at_the_start():
    model = Gpt2(WITHOUT_A_HEAD_TIED)
    init_weights(model, torch.Generator().manual_seed(3))
    state = model.state_dict()
    assert all(not tensor.any() for name, tensor in state.items() if is_output_projection(name) or "lm_head" in name)
    assert state["transformer.wte.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert state["transformer.wpe.weight"].std() == pytest.approx(0.01, rel=0.1)
    assert state["transformer.h.0.attn.c_attn.weight"].std() == pytest.approx(16**-0.5, rel=0.1)
    assert not state["transformer.h.0.ln_1.bias"].any() and (state["transformer.ln_f.weight"] == 1).all()
    with torch.no_grad():
        assert not model(IDS).any()  # uniform: the loss begins at ln(vocab_size)


def test_what_parameters_are():
    kinds = {name: kind_of(name, parameter.ndim) for name, parameter in Gpt2(WITHOUT_A_HEAD_TIED).named_parameters()}
    assert {name for name, kind in kinds.items() if kind == "embedding"} == {
        "transformer.wte.weight",
        "transformer.wpe.weight",
    }
    assert [name for name, kind in kinds.items() if kind == "head"] == ["lm_head.weight"]
    matrices = [name for name, kind in kinds.items() if kind == "matrix"]
    assert len(matrices) == 2 * 4 and all(map(inputs_first, matrices))
    assert not inputs_first("model.layers.0.mlp.up_proj.weight")
    assert [blocks_of(name) for name in matrices[:4]] == [3, 1, 1, 1]
    assert kinds["transformer.h.0.attn.c_attn.bias"] == kinds["transformer.h.0.ln_1.weight"] == "gain"


def test_starts_are_separate_documents():
    model = started(SMALL)
    starts = torch.tensor([[0] * 4 + [4] * 7, [0] * 9 + [9] * 2], dtype=torch.int32)
    with torch.no_grad():
        got = model.head(model.hidden(IDS, starts=starts))
        places = torch.arange(11) - starts
        assert torch.equal(got, model.head(model.hidden(IDS, places, starts=starts)))
        for row, cut in ((0, 4), (1, 9)):
            alone = torch.cat([model(IDS[row : row + 1, :cut]), model(IDS[row : row + 1, cut:])], 1)[0]
            assert (got[row] - alone).abs().max() < 1e-5
        assert (got - model(IDS)).abs().max() > 0.1


def test_later_tokens_are_not_seen():
    model = started(SMALL)
    other = IDS.clone()
    other[:, 6:] += 1
    other %= 50
    with torch.no_grad():
        assert torch.allclose(model(IDS)[:, :6], model(other)[:, :6], atol=1e-6)


def test_the_cache_changes_nothing():
    model = started(SMALL)
    cache = Cache(model.config, batch=2, capacity=4)
    rows = [IDS[0].tolist(), IDS[1, :7].tolist()]
    with torch.no_grad():
        first = read(model, cache, [row[:3] for row in rows])
        last = read(model, cache, [row[3:] for row in rows])
        assert torch.allclose(first[0], model(IDS[:1, :3])[0, -1], atol=1e-5)
        assert torch.allclose(last[0], model(IDS[:1])[0, -1], atol=1e-5)
        assert torch.allclose(last[1], model(IDS[1:, :7])[0, -1], atol=1e-5)


def test_generation_ends_with_the_positions():
    model = started(SMALL)
    ids = generate(model, [1, 2, 3], Sampling(temperature=0, max_tokens=100))
    row = [1, 2, 3]
    with torch.no_grad():
        for _ in range(29):
            row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    assert [1, 2, 3, *ids] == row
    with pytest.raises(SpecError, match="longer than"):
        model(torch.zeros(1, 33, dtype=torch.int64))


def test_activations_computed_again_give_the_same_gradients():
    grads = []
    for again in (False, True):
        model = Gpt2(SMALL, dropout=0.3).train()
        model.load_state_dict(started(SMALL).state_dict())
        model.checkpoint_activations = again
        torch.manual_seed(7)
        model(IDS).square().mean().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


def test_dropout_is_for_training():
    model = Gpt2(SMALL, dropout=0.5)
    model.load_state_dict(started(SMALL).state_dict())
    with torch.no_grad():
        assert not torch.equal(model(IDS), model(IDS))
        assert torch.equal(model.eval()(IDS), started(SMALL)(IDS))


def test_bf16_copies_with_fp32_vectors():
    """A replica as training holds it: matrices in bf16, gains and biases in fp32."""
    model, want = started(SMALL), started(SMALL)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.bfloat16()
    out = model(IDS)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert model.transformer.ln_f.bias.grad.dtype == torch.float32
    with torch.no_grad():
        difference = (out.float() - want(IDS)).abs().max()
        assert difference < 0.03 * want(IDS).abs().max()
        with torch.autocast("cpu", torch.bfloat16):
            assert want.hidden(IDS).dtype == torch.bfloat16


def test_softcapped_logits():
    model = started(SMALL)
    capped = started(dataclasses.replace(SMALL, final_logit_softcapping=0.5))
    with torch.no_grad():
        assert torch.allclose(capped(IDS), 0.5 * torch.tanh(model(IDS) / 0.5))
    assert Gpt2Config.from_hf(capped.config.to_hf()) == capped.config
    assert "final_logit_softcapping" not in SMALL.to_hf()


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_inner": 20}, {"tie_word_embeddings": False}, {"eos_token_id": (2, 5)}, {"activation_function": "gelu"}],
    ids=str,
)
def test_config_survives_its_file(changes):
    config = dataclasses.replace(SMALL, **changes)
    assert config_from_hf(config.to_hf()) == config


def test_config_as_transformers_fills_it():
    bare = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = config_from_hf(bare)
    assert isinstance(config, Gpt2Config)
    assert (config.eos_ids, config.bos_token_id, config.tie_word_embeddings) == ((50256,), 50256, True)
    assert config.intermediate_size == 32 and config.gelu == "tanh"
    assert config_from_hf({**bare, "vocab_size": 90}).eos_ids == ()
    assert config_from_hf({**bare, "eos_token_id": None}).eos_ids == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"activation_function": "relu"}, "relu"),
        ({"n_head": 3}, "n_head"),
        ({"n_layer": 0}, "n_layer"),
        ({"n_embd": None}, "n_embd"),
        ({"n_embd": "wide"}, "wrong type"),
        ({"eos_token_id": "end"}, "eos_token_id"),
        ({"final_logit_softcapping": -1}, "final_logit_softcapping"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"model_type": ["gpt2"]}, "not supported"),
        ({"model_type": "gpt_neo"}, "gpt2"),
    ],
    ids=str,
)
def test_config_that_is_refused(change, named):
    with pytest.raises(ArtifactError) as caught:
        config_from_hf({**SMALL.to_hf(), **change})
    assert named in f"{caught.value.message} {caught.value.hint}"


def made(spec: PretrainSpec, vocab_size: int):
    return sized_config(
        spec.architecture,
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.mlp_width,
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        max_positions=spec.seq_len,
        rope_theta=spec.rope_theta,
        tie_embeddings=spec.tie_embeddings,
        bos_id=None,
        eos_id=0,
        pad_id=None,
    )


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_parameters_are_counted_before_they_are_made(architecture, tied):
    spec = PretrainSpec(architecture=architecture, hidden_size=128, num_heads=2, tie_embeddings=tied, seq_len=64)
    model = build_model(made(spec, 300))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters(spec, 300) == parameters
    assert model.config.model_type in architectures()
    looked_up = (0 if tied else 300 * 128) + (64 * 128 if architecture == "gpt2" else 0)
    assert model.config.lookup_parameters == looked_up
    assert flops_per_token(model.config, parameters, 64) == 6 * (parameters - looked_up) + 6 * 4 * 128 * 64


@pytest.mark.parametrize(
    "change", [{"hidden_size": 192}, {"num_kv_heads": 1}, {"rope_theta": 5e5}, {"head_dim": 32}], ids=str
)
def test_pretraining_gpt2_refuses_what_it_would_not_read(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        PretrainSpec(**{"architecture": "gpt2", "hidden_size": 256, "num_heads": 4, **change})
