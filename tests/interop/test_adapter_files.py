"""Our adapters opened by PEFT, and PEFT's by us."""

from __future__ import annotations

import pytest
import torch

from gptcli.models.init import init_weights
from gptcli.models.llama import Llama, LlamaConfig
from gptcli.models.load import load_adapter, load_model, save_adapter, save_model
from gptcli.models.lora import LoraConfig, apply_lora, merge, trainable_parameters

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def adapted(model_type: str, tied: bool, lora: LoraConfig, base_dir) -> Llama:
    """A base saved to `base_dir`, with an adapter whose every tensor has moved."""
    config = LlamaConfig(model_type, 97, 32, 56, 2, 4, 2, 8, 64, tie_word_embeddings=tied, eos_token_id=2)
    generator = torch.Generator().manual_seed(3)
    model = Llama(config).eval()
    init_weights(model, generator, embedding_std=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.1, generator=generator))
    save_model(model.state_dict(), config, base_dir)
    apply_lora(model, lora, generator)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator))
    return model


def token_ids() -> torch.Tensor:
    ids = torch.randint(0, 97, (3, 40), generator=torch.Generator().manual_seed(5))
    ids[0, :6] = torch.tensor([4, 5, 90, 4, 4, 90])
    return ids


LORAS = [
    LoraConfig(rank=4, alpha=10.0, token_ids=(4, 5, 90)),
    LoraConfig(rank=2, alpha=2.0, dropout=0.1, target_modules=("q_proj", "v_proj"), token_ids=(90, 4)),
    LoraConfig(rank=3, alpha=1.5),
]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("lora", LORAS)
def test_peft_gives_our_logits_and_our_merge(lora, model_type, tied, tmp_path):
    base_dir, adapter_dir = tmp_path / "base", tmp_path / "adapter"
    model = adapted(model_type, tied, lora, base_dir)
    save_adapter(model, lora, str(base_dir), adapter_dir)
    base = transformers.AutoModelForCausalLM.from_pretrained(base_dir, attn_implementation="eager")
    theirs = peft.PeftModel.from_pretrained(base, adapter_dir).eval()
    ids = token_ids()
    with torch.no_grad():
        untouched, got, want = load_model(base_dir)(ids), model(ids), theirs(ids).logits
    assert (untouched - got).abs().max() > 0.5
    assert (got - want).abs().max() < 1e-4
    with torch.no_grad():
        assert (torch.nn.functional.linear(model.hidden(ids), model.head_weight) - got).abs().max() < 1e-4

    merged = merge(model)
    whole = theirs.merge_and_unload().state_dict()
    assert set(whole) - {"lm_head.weight"} == set(merged) - {"lm_head.weight"}
    assert max(float((merged[name] - whole[name]).abs().max()) for name in merged) < 1e-5

    reopened = load_model(base_dir)
    assert load_adapter(reopened, adapter_dir) == lora
    with torch.no_grad():
        assert torch.equal(reopened(ids), got)


@pytest.mark.parametrize("tied", [True, False])
def test_we_open_what_peft_saves(tied, tmp_path):
    base_dir, adapter_dir = tmp_path / "base", tmp_path / "adapter"
    adapted("qwen3", tied, LoraConfig(), base_dir)
    base = transformers.AutoModelForCausalLM.from_pretrained(base_dir, attn_implementation="eager")
    rows = {"embed_tokens": [7, 9]} if tied else {"embed_tokens": [7, 9], "lm_head": [7, 9]}
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", trainable_token_indices=rows, task_type="CAUSAL_LM"
    )
    theirs = peft.get_peft_model(base, settings).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.2)
    theirs.save_pretrained(adapter_dir)
    ours = load_model(base_dir)
    load_adapter(ours, adapter_dir)
    ids = token_ids()
    ids[1, :4] = torch.tensor([7, 9, 9, 7])
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-4
