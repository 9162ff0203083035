from __future__ import annotations

import pytest
import torch

from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.training.arena import Arena, Average, Replica

CONFIG = LlamaConfig("qwen3", 48, 32, 40, 2, 2, 1, 16, 16)


def allocate(elements: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(elements, dtype=dtype)


def model() -> Llama:
    made = Llama(CONFIG)
    init_weights(made, torch.Generator().manual_seed(0))
    return made


def test_the_flat_buffer_is_the_model() -> None:
    module, before = model(), model().state_dict()
    arena = Arena(module, 1, allocate)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    arena.masters.mul_(2)
    assert all(torch.equal(module.state_dict()[name], 2 * tensor) for name, tensor in before.items())
    assert arena.masters.numel() == sum(tensor.numel() for tensor in before.values())


def test_what_multiplies_the_same_input_lies_side_by_side() -> None:
    replica = Replica(Arena(model(), 1, allocate), torch.bfloat16, allocate)
    attention = replica.module.model.layers[0].self_attn
    ends = attention.q_proj.weight.data_ptr() + attention.q_proj.weight.nbytes
    assert ends == attention.k_proj.weight.data_ptr()
    mlp = replica.module.model.layers[1].mlp
    assert mlp.gate_proj.weight.data_ptr() + mlp.gate_proj.weight.nbytes == mlp.up_proj.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_of_all_micro_batches_are_added_in_fp32(dtype: torch.dtype) -> None:
    arena = Arena(model(), 2, allocate)
    replica = Replica(arena, dtype, allocate)
    replica.collect(1)
    ids = torch.randint(0, 48, (2, 8), generator=torch.Generator().manual_seed(1))
    for row in ids:
        replica.module(row[None]).float().logsumexp(-1).sum().backward()

    plain = model()
    plain(ids).logsumexp(-1).sum().backward()
    assert arena.sums[0].abs().max() == 0
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        ours = arena.view(arena.sums[1], name)
        difference = (ours - parameter.grad).norm() / parameter.grad.norm().clamp(min=1e-3)
        assert difference < (1e-5 if dtype == torch.float32 else 0.05), name
    arena.zero(1)
    assert arena.sums[1].abs().max() == 0


def test_copies_are_the_rounded_masters_after_a_refresh_and_vectors_at_once() -> None:
    arena = Arena(model(), 1, allocate)
    replica = Replica(arena, torch.bfloat16, allocate)
    arena.masters.add_(1.0)
    first, second = (f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2))
    replica.refresh([first])
    copies = dict(replica.module.named_parameters())
    masters = dict(arena.module.named_parameters())
    assert torch.equal(copies[first], masters[first].bfloat16())
    assert not torch.equal(copies[second], masters[second].bfloat16())
    assert torch.equal(copies["model.norm.weight"], masters["model.norm.weight"])
    replica.refresh()
    assert torch.equal(copies[second], masters[second].bfloat16())


def test_an_average_follows_and_changes_places() -> None:
    arena = Arena(model(), 1, allocate)
    average = Average(arena, 0.9, allocate)
    start = arena.masters.clone()
    arena.masters.add_(1.0)
    names = [name for name, _ in arena.module.named_parameters()]
    average.follow(names)
    assert torch.allclose(average.values, start + 0.1)
    learnt = arena.masters.clone()
    average.swap()
    assert torch.allclose(arena.masters, start + 0.1) and torch.equal(average.values, learnt)
    average.load_state({name: tensor.clone() for name, tensor in average.state().items()})
    average.swap()
    assert torch.equal(arena.masters, learnt)
