"""The model in bf16 on one thread, where operations take their native form, beside the same in fp32."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.training.loss import linear_cross_entropy

SHAPES = {
    "qwen3": LlamaConfig("qwen3", 97, 48, 80, 2, 4, 2, 12, 64),
    "qwen2": LlamaConfig("qwen2", 97, 48, 80, 2, 4, 2, 12, 64, tie_word_embeddings=True),
    "llama": LlamaConfig("llama", 97, 48, 80, 2, 4, 4, 12, 64, attention_bias=True, mlp_bias=True),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fp32_model(config: LlamaConfig) -> Llama:
    """A model none of whose parameters is zero, all of them representable in bf16."""
    model = Llama(config)
    generator = torch.Generator().manual_seed(0)
    init_weights(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
            parameter.copy_(parameter.bfloat16())
    return model


def replica(model: Llama, joined: bool) -> Llama:
    """The same with bf16 matrices, in one buffer if `joined`, and fp32 vectors."""
    copy = Llama(model.config)
    copy.load_state_dict(model.state_dict())
    matrices = [parameter for parameter in copy.parameters() if parameter.ndim > 1]
    flat = torch.cat([matrix.detach().flatten() for matrix in matrices]).bfloat16()
    parts = flat.split([matrix.numel() for matrix in matrices])
    for matrix, part in zip(matrices, parts, strict=True):
        matrix.data = (part if joined else part.clone()).view(matrix.shape)
    return copy


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 97, (3, 41), generator=generator)
    starts = (torch.arange(40) // 13 * 13).expand(3, 40).int()
    return ids[:, :-1], ids[:, 1:], starts


def gradients(model: Llama, starts: Tensor | None) -> tuple[float, Tensor]:
    ids, targets, _ = batch()
    hidden = model.hidden(ids, starts=starts)
    objective, plain = linear_cross_entropy(hidden.flatten(0, 1), model.head_weight, targets.flatten())
    objective.backward()
    return plain.item(), torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("joined", [True, False], ids=["one-buffer", "apart"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole-rows", "documents"])
@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradients_are_those_of_fp32(name: str, masked: bool, joined: bool) -> None:
    model = fp32_model(SHAPES[name])
    starts = batch()[2] if masked else None
    exact_loss, exact = gradients(model, starts)
    loss, found = gradients(replica(model, joined), starts)
    assert len(found) == len(exact) and loss == pytest.approx(exact_loss, rel=5e-3)
    assert F.cosine_similarity(found, exact, dim=0) > 0.999


def test_documents_in_a_row_do_not_see_each_other() -> None:
    model = fp32_model(SHAPES["qwen3"])
    ids, _, starts = batch()
    positions = torch.arange(40) - starts.long()
    whole = model.hidden(ids, positions, starts=starts)
    for first, last in ((0, 13), (13, 26), (39, 40)):
        assert torch.allclose(whole[:, first:last], model.hidden(ids[:, first:last]), atol=1e-5)


@pytest.mark.parametrize("native", [False, True], ids=["fp32", "native"])
def test_activations_made_again_give_the_same_gradients(native: bool) -> None:
    model = fp32_model(SHAPES["qwen3"])
    model = replica(model, True) if native else model
    loss, kept = gradients(model, batch()[2])
    model.zero_grad()
    model.checkpoint_activations = True
    again, made = gradients(model, batch()[2])
    assert loss == again and torch.equal(kept, made)


def test_a_second_process_computes_the_same_bits() -> None:
    program = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("again", {str(Path(__file__))!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.fingerprint())
"""
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint()


def fingerprint() -> str:
    torch.set_num_threads(1)
    loss, found = gradients(replica(fp32_model(SHAPES["qwen3"]), True), batch()[2])
    return f"{loss.hex()} {hashlib.sha256(found.numpy().tobytes()).hexdigest()}"


def test_the_softcap_bounds_the_logits() -> None:
    model = fp32_model(SHAPES["qwen3"])
    capped = Llama(dataclasses.replace(model.config, final_logit_softcapping=2.0))
    capped.load_state_dict(model.state_dict())
    free, bound = model(batch()[0]), capped(batch()[0])
    assert torch.allclose(bound, 2 * torch.tanh(free / 2)) and bound.abs().max() <= 2 < free.abs().max()


def test_documents_compile_as_one_graph() -> None:
    torch._dynamo.reset()
    model = fp32_model(SHAPES["qwen3"])
    ids, _, starts = batch()
    compiled = torch.compile(model.hidden, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(ids, starts=starts), model.hidden(ids, starts=starts), atol=1e-6)
    torch._dynamo.reset()
