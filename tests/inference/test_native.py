"""The compiled loops: what the modules compute, and the same bits however it is cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from numba.core.event import Event, EventStatus

from gptcli.inference.native.packed import FEWEST_ROWS, packs, products, serves
from gptcli.inference.native.reader import NativeReader, _Notice
from gptcli.inference.native.step import step
from gptcli.inference.reader import ModuleReader
from gptcli.models.config import Gpt2Config, LlamaConfig
from gptcli.models.family import CausalLM, build_model
from gptcli.models.init import init_weights
from gptcli.models.load import load_model
from gptcli.models.lora import LoraConfig, apply_lora
from gptcli.models.quantized import load_quantized, quantize_model

GQA = LlamaConfig("qwen3", 131, 48, 52, 2, 6, 2, 18, 400, attention_bias=True)
CONFIGS = {
    "qwen3": GQA,
    "qwen2": dataclasses.replace(GQA, model_type="qwen2", attention_bias=False, tie_word_embeddings=True),
    "llama": LlamaConfig("llama", 131, 64, 172, 2, 2, 1, 32, 400, mlp_bias=True, final_logit_softcapping=5.0),
    "gpt2": Gpt2Config(131, 400, 48, 2, 3),
    "gpt2-erf": dataclasses.replace(Gpt2Config(131, 400, 48, 2, 3), activation_function="gelu"),
}
DRAW = torch.Generator().manual_seed(2)
ROWS = [torch.randint(0, 131, (length,), generator=DRAW).tolist() for length in (1, 300, 17, 2, 64)]


def made(name: str, weights: str = "float32") -> CausalLM:
    model, generator = build_model(CONFIGS[name]).eval(), torch.Generator().manual_seed(1)
    init_weights(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.15, generator=generator))
    if weights == "lora":
        apply_lora(model, LoraConfig(4, token_ids=(3, 9), fan_in_fan_out=name.startswith("gpt2")), generator)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.1, generator=generator))
    elif weights == "int8":
        quantize_model(model)
    elif weights == "bfloat16":
        model.to(torch.bfloat16)
    return model.eval()


@pytest.mark.parametrize("weights", ["float32", "lora", "int8", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_modules(name: str, weights: str) -> None:
    model = made(name, weights)
    got = NativeReader(model, 5).read(range(5), ROWS)
    if weights == "bfloat16":
        model.float()  # the same weights, computed with in fp32 as the loops do
    want = ModuleReader(model, 5).read(range(5), ROWS)
    assert (got - want).abs().max() < 2e-4 * max(1.0, float(want.abs().max()))
    assert want.std() > 0.1


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_the_bits_are_the_same_however_it_is_cut(name: str, weights: str) -> None:
    model, threads = made(name, weights), torch.get_num_threads()
    together = NativeReader(model, 6, capacity=8)
    want = together.read([5, 0, 3, 1, 4], ROWS)
    for slot, row, logits in zip([5, 0, 3, 1, 4], ROWS, want, strict=True):
        alone = NativeReader(model, 1)
        for cut in (row[: len(row) // 3], row[len(row) // 3 : -1], row[-1:]):
            if cut:
                last = alone.read([0], [cut])[0]
        assert torch.equal(last, logits)
        together.copy(slot, 2, len(row) - 1)
        assert torch.equal(together.read([2], [row[-1:]])[0], logits)
    try:
        torch.set_num_threads(3)
        assert torch.equal(NativeReader(model, 5).read(range(5), ROWS), want)
    finally:
        torch.set_num_threads(threads)


def test_the_trained_model_is_read_as_its_modules_do(data_dir: Path) -> None:
    model, rows = load_model(data_dir / "stories260K-hf"), [[1, 403, 407, 261], [1] * 200]
    got, want = NativeReader(model, 2).read([0, 1], rows), ModuleReader(model, 2).read([0, 1], rows)
    assert (got - want).abs().max() < 1e-4


@pytest.mark.skipif(not serves(), reason="this processor has no bf16")
@pytest.mark.parametrize("name", CONFIGS)
def test_packed_products_round_as_the_modules_do(name: str) -> None:
    model = made(name, "bfloat16")
    assert packs(model)
    reader, modules = NativeReader(model, 5, packed=True), ModuleReader(model, 5).read(range(5), ROWS).float()
    exact = NativeReader(model, 5).read(range(5), ROWS)
    got = reader.read(range(5), ROWS)
    assert 0 < (got - exact).square().mean() < 1.5 * (modules - exact).square().mean()
    assert (got - exact).abs().max() < 0.1 * exact.std()
    many = [[i] for i in range(2 * FEWEST_ROWS)]
    together = NativeReader(model, len(many), packed=True).read(range(len(many)), many)
    for slot, row in enumerate(many[:3]):
        alone, loops = NativeReader(model, 1, packed=True).read([0], [row])[0], NativeReader(model, 1).read([0], [row])
        assert (together[slot] - alone).abs().max() < 0.1 * exact.std()
        assert name.startswith("gpt2") or torch.equal(alone, loops[0])


@pytest.mark.skipif(not serves(), reason="this processor has no bf16")
def test_packed_products_are_kept_until_weights_change() -> None:
    model = made("qwen2", "bfloat16")
    before, rows = NativeReader(model, 1, packed=True).read([0], [ROWS[1]]), [ROWS[1]]
    found = products(model)
    assert products(model) is found
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight *= 1.5
    after = NativeReader(model, 1, packed=True).read([0], rows)
    want = NativeReader(model, 1).read([0], rows)
    assert (after - want).abs().max() < 0.1 * want.std() < (after - before).abs().max()
    model.model.embed_tokens.weight.detach().view(torch.int16).numpy()[:] += 1  # past torch's count of changes
    assert products(model) is not found


@pytest.mark.parametrize("weights", ["float32", "lora", "int8"])
def test_exact_and_other_weights_are_not_packed(weights: str) -> None:
    assert not packs(made("llama", weights))


@pytest.mark.parametrize("name", ["stories260K-hf", "ckpt-hf-tiny-gpt2"])
def test_int8_weights_load_as_they_are_made(data_dir: Path, name: str) -> None:
    directory = data_dir / name
    want = load_model(directory)
    quantize_model(want)
    got = load_quantized(directory)
    assert not got.training and got.state_dict().keys() == want.state_dict().keys()
    for key, tensor in want.state_dict().items():
        assert torch.equal(got.state_dict()[key], tensor) and got.state_dict()[key].dtype == tensor.dtype
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(got(ids), want(ids))


def test_compiling_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for dispatcher, said in ((step, "compiling the loops of this machine"), (None, "")):
        _Notice().on_start(Event("numba:compile", EventStatus.START, {"dispatcher": dispatcher}))
        told = capsys.readouterr()
        assert told.err.startswith(said) and bool(told.err) == bool(said) and not told.out
