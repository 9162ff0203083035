from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gptcli.errors import ArtifactError, SpecError
from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.models.lora import (
    ALL_LINEAR,
    LoraConfig,
    adapter_state_dict,
    apply_lora,
    load_adapter_state_dict,
    merge,
    trainable_parameters,
)

ROWS = (4, 5, 30)
IDS = torch.tensor([[1, 4, 3, 49, 5, 4, 9], [5, 5, 30, 2, 1, 8, 4]])


def base(tied: bool) -> Llama:
    model = Llama(LlamaConfig("qwen3", 50, 16, 24, 2, 4, 2, 4, 32, tie_word_embeddings=tied)).eval()
    generator = torch.Generator().manual_seed(2)
    init_weights(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.3, generator=generator))
    return model


def loss_of(model: Llama, dense: bool = False) -> torch.Tensor:
    hidden = model.hidden(IDS[:, :-1])
    logits = F.linear(hidden, model.head_weight) if dense else model.head(hidden)
    return F.cross_entropy(logits.float().flatten(0, 1), IDS[:, 1:].flatten())


def moved(model: Llama) -> Llama:
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator))
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_fresh_adapter_changes_nothing(tied):
    model = base(tied)
    want = model(IDS)
    apply_lora(model, LoraConfig(4, 8.0, token_ids=ROWS), torch.Generator().manual_seed(0))
    assert torch.allclose(model(IDS), want, atol=1e-5)
    names = set(trainable_parameters(model))
    assert len(names) == 2 * 2 * len(ALL_LINEAR) + (1 if tied else 2)
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in names)


@pytest.mark.parametrize("tied", [True, False])
def test_row_gradients_are_the_dense_ones(tied):
    """Against a model whose whole embedding and head get a gradient."""
    free = base(tied)
    for name, parameter in free.named_parameters():
        parameter.requires_grad_("embed" in name or "lm_head" in name)
    loss_of(free).backward()
    adapted = base(tied)
    apply_lora(adapted, LoraConfig(4, 8.0, token_ids=ROWS), torch.Generator())
    for dense in (False, True):
        adapted.zero_grad()
        loss_of(adapted, dense).backward()
        rows = adapted.model.embed_tokens.token_adapter.trainable_tokens_delta
        assert torch.allclose(rows.grad, free.model.embed_tokens.weight.grad[list(ROWS)], atol=1e-6)
        if not tied:
            rows = adapted.lm_head.token_adapter.trainable_tokens_delta
            assert torch.allclose(rows.grad, free.lm_head.weight.grad[list(ROWS)], atol=1e-6)
        frozen = [p for p in adapted.parameters() if not p.requires_grad]
        assert all(p.grad is None for p in frozen)


def test_lora_gradients_are_those_of_the_merged_matrix():
    adapted = base(True)
    apply_lora(adapted, LoraConfig(3, 6.0, target_modules=("v_proj",)), torch.Generator().manual_seed(0))
    moved(adapted)
    whole = Llama(adapted.config)
    whole.load_state_dict(merge(adapted))
    loss_of(whole).backward()
    loss_of(adapted).backward()
    layer = adapted.model.layers[1].self_attn.v_proj
    dense = whole.model.layers[1].self_attn.v_proj.weight.grad
    a, b = layer.lora_A.weight, layer.lora_B.weight
    assert torch.allclose(a.grad, 2.0 * b.T @ dense, atol=1e-6)
    assert torch.allclose(b.grad, 2.0 * dense @ a.T, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cast", ["autocast", "bf16 base"])
def test_training_in_bf16_keeps_fp32_factors_and_learns(tied, cast):
    model = base(tied)
    if cast == "bf16 base":
        model = model.to(torch.bfloat16)
    apply_lora(model, LoraConfig(4, 8.0, 0.1, token_ids=ROWS), torch.Generator().manual_seed(0))
    model.train()
    trained = trainable_parameters(model)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    frozen = {n: p.clone() for n, p in model.named_parameters() if n not in trained}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.02)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast == "autocast"):
            loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0
    assert all(torch.equal(tensor, dict(model.named_parameters())[name]) for name, tensor in frozen.items())


@pytest.mark.parametrize("tied", [True, False])
def test_merge_is_the_adapted_model(tied):
    model = base(tied)
    before = model.state_dict()
    apply_lora(model, LoraConfig(4, 10.0, token_ids=ROWS), torch.Generator().manual_seed(1))
    moved(model)
    merged = merge(model)
    assert list(merged) == list(before)
    whole = Llama(model.config).eval()
    whole.load_state_dict(merged)
    assert torch.allclose(whole(IDS), model(IDS), atol=1e-4)
    changed = (merged["model.embed_tokens.weight"] != before["model.embed_tokens.weight"]).any(1)
    assert changed.nonzero().flatten().tolist() == sorted(ROWS)


def test_only_the_named_layers_are_adapted_and_the_generator_decides_them():
    states = []
    for seed in (1, 1, 2):
        model = base(True)
        apply_lora(model, LoraConfig(4, 8.0, target_modules=("q_proj", "up_proj")), torch.Generator().manual_seed(seed))
        states.append(adapter_state_dict(model))
    assert {name.split(".")[-3] for name in states[0]} == {"q_proj", "up_proj"}
    same = [all(torch.equal(states[0][name], other[name]) for name in other) for other in states[1:]]
    assert same == [True, False]


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(SpecError, match="no linear layer z_proj"):  # what a user may have asked for
        apply_lora(base(True), LoraConfig(target_modules=("q_proj", "z_proj")), torch.Generator())
    with pytest.raises(ArtifactError, match="50"):
        apply_lora(base(True), LoraConfig(token_ids=(50,)), torch.Generator())
    with pytest.raises(ArtifactError, match="twice"):
        LoraConfig(token_ids=(4, 4))
    with pytest.raises(ArtifactError, match="use_dora"):
        LoraConfig.from_peft({**LoraConfig().to_peft("x", True), "use_dora": True})
    with pytest.raises(ArtifactError, match="IA3"):
        LoraConfig.from_peft({"peft_type": "IA3"})
    model = base(True)
    apply_lora(model, LoraConfig(4), torch.Generator())
    state = dict(adapter_state_dict(model))
    name = next(iter(state))
    with pytest.raises(ArtifactError, match="has shape"):
        load_adapter_state_dict(model, {**state, name: state[name][:1]})
    del state[name]
    with pytest.raises(ArtifactError, match="is missing"):
        load_adapter_state_dict(model, {**state})


def test_all_linear_and_config_round_trip():
    lora = LoraConfig(4, 12.5, 0.1, ("all-linear",), (9, 2))
    assert lora.target_modules == ALL_LINEAR
    for tied in (True, False):
        assert LoraConfig.from_peft(lora.to_peft("runs/base", tied)) == lora
