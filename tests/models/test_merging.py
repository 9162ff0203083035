from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.errors import ArtifactError
from gptcli.models.config import ModelConfig
from gptcli.models.family import build_model, sized_config
from gptcli.models.importers.fitting import fit
from gptcli.models.importers.hugging_face import stored_tensors
from gptcli.models.load import ADAPTER_WEIGHTS, load_adapter, load_model, save_adapter, save_model
from gptcli.models.lora import LoraConfig, apply_lora, merge, trainable_parameters
from gptcli.models.merging import merged_tensors


def config_of(architecture: str, tied: bool) -> ModelConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_layers": 2, "num_heads": 2, "head_dim": 8}
    return sized_config(
        architecture,
        vocab_size=24,
        num_kv_heads=1 if architecture != "gpt2" else 2,
        max_positions=32,
        rope_theta=1e4,
        tie_embeddings=tied,
        bos_id=0,
        eos_id=1,
        pad_id=None,
        **sizes,
    )


def make(root: Path, architecture: str, tied: bool, dtype: torch.dtype) -> tuple[Path, Path]:
    """A base and an adapter on it whose factors are all drawn."""
    torch.manual_seed(5)
    model = build_model(config_of(architecture, tied)).eval()
    base, adapter = root / "base", root / "adapter"
    base.mkdir()
    save_model(model.state_dict(), model.config, base, dtype)
    model = load_model(base)
    lora = LoraConfig(rank=3, alpha=7, token_ids=(4, 9), fan_in_fan_out=architecture == "gpt2")
    apply_lora(model, lora, torch.Generator())
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.normal_(0, 0.3)
    adapter.mkdir()
    save_adapter(model, lora, str(base), adapter)
    return base, adapter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("architecture", "tied"),
    [("qwen3", False), ("llama", True), ("gpt2", True)],
    ids=["qwen3", "llama tied", "gpt2"],
)
def test_tensor_by_tensor_is_the_whole_model_s_merge(
    architecture: str, tied: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    base, adapter = make(tmp_path, architecture, tied, dtype)
    whole = load_model(base)
    load_adapter(whole, adapter)
    wanted = merge(whole)
    stored = fit(stored_tensors(base)[1], whole.config, "base")
    found, changed = merged_tensors(stored, whole.config, adapter)
    assert found.keys() == stored.keys() and 0 < changed < len(found)
    for name, tensor in found.items():
        assert tensor.dtype == dtype and torch.equal(tensor.read(), wanted[name].to(dtype)), name
    assert sum(not torch.equal(found[name].read(), stored[name].read()) for name in found) == changed


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base, adapter = make(tmp_path, "llama", True, torch.float32)
    config = load_model(base).config
    stored = fit(stored_tensors(base)[1], config, "base")
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    name = next(name for name in tensors if "q_proj.lora_B" in name)
    save_file({**tensors, name: tensors[name][:3].clone(), "else": torch.zeros(1)}, adapter / ADAPTER_WEIGHTS)
    with pytest.raises(ArtifactError, match=r"else is not expected; .*q_proj\.lora_B\.weight has shape \[3, 3\]"):
        merged_tensors(stored, config, adapter)
