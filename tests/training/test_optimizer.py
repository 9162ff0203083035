from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.models.naming import kind_of
from gptcli.training.optimizer import Optimizers, Rates, pretraining_optimizers

CONFIG = LlamaConfig(
    model_type="qwen3",
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=16,
)


def model_and_optimizers(rule: str, lr: float = 0.02) -> tuple[Llama, Optimizers]:
    model = Llama(CONFIG)
    init_weights(model, torch.Generator().manual_seed(0))
    return model, pretraining_optimizers(model, rule, Rates(lr, 0.01, 0.004, 0.01), 0.05, (0.8, 0.95))


def steps(model: Llama, optimizers: Optimizers, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        ids = torch.randint(0, 40, (2, 9))
        logits = model(ids[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizers.step()
        optimizers.zero_grad()


@pytest.mark.parametrize("rule", ["muon", "adamw"])
def test_state_taken_up_from_a_file_goes_on_to_the_same_bits(tmp_path: Path, rule: str) -> None:
    model, optimizers = model_and_optimizers(rule)
    steps(model, optimizers, range(3))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in optimizers.state().items()}, tmp_path / "o.safetensors")
    steps(model, optimizers, range(3, 6))

    again, fresh = model_and_optimizers(rule)
    again.load_state_dict(weights)
    fresh.load_state(load_file(tmp_path / "o.safetensors"))
    steps(again, fresh, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert optimizers.state().keys() == fresh.state().keys()


def test_rates_are_those_set_now_not_those_saved() -> None:
    model, optimizers = model_and_optimizers("muon", lr=0.02)
    steps(model, optimizers, range(1))
    _, fresh = model_and_optimizers("muon", lr=0.5)
    fresh.load_state(optimizers.state())
    fresh.set_factor(0.5)
    assert fresh.lr == 0.25


def test_every_parameter_learns_and_each_kind_by_its_own_rate() -> None:
    model, optimizers = model_and_optimizers("muon")
    kinds = {name: kind_of(name, parameter.ndim) for name, parameter in model.named_parameters()}
    assert set(kinds.values()) == {"matrix", "embedding", "head", "gain"}
    rates = {
        id(parameter): group["lr"]
        for member in optimizers.members
        for group in member.param_groups
        for parameter in group["params"]
    }
    wanted = {"matrix": 0.02, "embedding": 0.01, "head": 0.004, "gain": 0.01}
    assert all(rates[id(parameter)] == wanted[kinds[name]] for name, parameter in model.named_parameters())


def test_muon_orthogonalises_each_matrix() -> None:
    model, optimizers = model_and_optimizers("muon")
    weight = model.model.layers[0].self_attn.q_proj.weight
    # Head and output projections start at zero: the head learns first, then they, then what lies before them.
    steps(model, optimizers, range(2))
    before = weight.detach().clone()
    steps(model, optimizers, range(2, 3))
    update = (before * (1 - 0.02 * 0.05) - weight.detach()) / 0.02
    singular = torch.linalg.svdvals(update)
    assert 0.7 < singular[0] < 1.4  # whatever the gradient's size
    assert singular[0] / singular[5] < 1.2  # and level where the gradient has rank at all
