"""Weights as 8-bit integers: how far they are, and what stands in for what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptcli.models.family import CausalLM
from gptcli.models.load import load_model
from gptcli.models.quantized import LARGEST, Int8Embedding, Int8Linear, quantize, quantize_model
from gptcli.tokenizer import Tokenizer

TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw"


def test_a_matrix_is_within_half_a_scale():
    weight = torch.randn(40, 33, generator=torch.Generator().manual_seed(0))
    weight[3] = 0.0
    numbers, scale = quantize(weight)
    assert numbers.dtype == torch.int8 and int(numbers.abs().max()) == LARGEST
    assert ((numbers.float() * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()
    assert not numbers[3].any()
    again = quantize(numbers.float() * scale[:, None])
    assert torch.equal(again[0], numbers)


@torch.no_grad()
def nats(model: CausalLM, ids: list[int]) -> tuple[float, torch.Tensor]:
    """The mean loss of a text, and its logits."""
    logits = model(torch.tensor([ids]))[0].float()
    return float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]))), logits


@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
def test_a_trained_model_hardly_changes(kind: str, data_dir: Path):
    home = data_dir / "stories260K-hf"
    ids = [1, *Tokenizer.load(home).encode(TEXT)]
    loss, logits = nats(load_model(home), ids)
    model = load_model(home, dtype=torch.bfloat16 if kind == "bfloat16" else torch.float32)
    if kind == "int8":
        quantize_model(model)
    changed, others = nats(model, ids)
    assert abs(changed - loss) < 0.02  # nats a token: perplexity within 2 %
    assert (others - logits).abs().mean() < 0.02 * logits.std()
    assert not torch.equal(others, logits)


def test_matrices_are_replaced_and_nothing_else(data_dir: Path):
    for name in ("stories260K-hf", "ckpt-hf-tiny-gpt2"):
        model = load_model(data_dir / name)
        before = model(torch.tensor([[1, 2, 3]]))
        norms = [parameter for parameter in model.parameters() if parameter.ndim == 1]
        quantize_model(model)
        kinds = {type(module) for module in model.modules()}
        assert {Int8Linear, Int8Embedding} <= kinds and torch.nn.Linear not in kinds
        assert all(parameter.ndim == 1 for path, parameter in model.named_parameters() if "wpe" not in path)
        assert [parameter for parameter in model.parameters() if any(parameter is norm for norm in norms)]
        assert (model(torch.tensor([[1, 2, 3]])) - before).abs().max() < 0.05 * before.std()
        model.to(torch.bfloat16)
        assert model(torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16
        assert all(m.scale.dtype == torch.float32 for m in model.modules() if isinstance(m, Int8Linear))
