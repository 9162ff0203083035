"""What a directory must have to be opened as a model that reads text."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, SpecError
from gptcli.inference.open import open_model
from gptcli.models.family import build_model, read_config
from gptcli.models.init import init_weights
from gptcli.models.load import load_model, save_adapter, save_model
from gptcli.models.lora import LoraConfig, apply_lora, trainable_parameters

CPU = torch.device("cpu")
IDS = 512  # of the tokenizer


def model_of(ids, data_dir, directory):
    """A directory of a fresh model of so many ids, with the tokenizer of stories260K."""
    config = dataclasses.replace(read_config(data_dir / "stories260K-hf"), vocab_size=ids)
    model = build_model(config)
    init_weights(model, torch.Generator().manual_seed(0))
    directory.mkdir()
    save_model(model.state_dict(), config, directory)
    shutil.copy(data_dir / "stories260K-hf" / "tokenizer.model", directory)
    return model


@pytest.fixture
def project(tmp_path):
    return Project.open(tmp_path)


@pytest.mark.parametrize("ids", [IDS - 1, IDS, IDS + 64])
def test_a_tokenizer_of_more_ids_than_the_model_is_refused(ids, project, data_dir):
    model_of(ids, data_dir, project.root / "model")
    if ids >= IDS:
        assert open_model(project, "./model", CPU)[1].vocab_size == IDS
        return
    with pytest.raises(ArtifactError, match=r"\./model: the tokenizer has 512 ids, the model 511"):
        open_model(project, "./model", CPU)


@pytest.mark.parametrize("ids", [IDS - 1, IDS])
def test_an_adapter_is_held_against_its_base(ids, project, data_dir):
    model, lora = model_of(ids, data_dir, project.root / "model"), LoraConfig(4)
    apply_lora(model, lora, torch.Generator())
    save_adapter(model, lora, "model", project.root / "adapter")
    shutil.copy(data_dir / "stories260K-hf" / "tokenizer.model", project.root / "adapter")
    if ids >= IDS:
        _, tokenizer, found = open_model(project, "./adapter", CPU)
        assert (tokenizer.vocab_size, found.kind) == (IDS, "adapter")
        return
    with pytest.raises(ArtifactError, match=r"\./adapter: the tokenizer has 512 ids, the model 511"):
        open_model(project, "./adapter", CPU)


@pytest.mark.parametrize("weights", ["auto", "float32", "bfloat16", "int8"])
def test_an_adapter_is_merged_for_inference(weights, project, data_dir):
    shutil.copytree(data_dir / "stories260K-hf", project.root / "model")
    model, lora = load_model(project.root / "model"), LoraConfig(4, token_ids=(2, 7))
    apply_lora(model, lora, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.02)
    save_adapter(model, lora, "model", project.root / "adapter")
    shutil.copy(data_dir / "stories260K-hf" / "tokenizer.model", project.root / "adapter")
    ids = torch.tensor([[1, 403, 407, 261, 378]])
    in_place, _, _ = open_model(project, "./adapter", CPU)
    merged, _, _ = open_model(project, "./adapter", CPU, weights=weights)
    want, got = in_place(ids), merged(ids).float()
    assert (want - load_model(project.root / "model")(ids)).abs().max() > 0.1
    assert not any("lora" in name for name, _ in merged.named_parameters())
    near = {"auto": 1e-5, "float32": 1e-5}.get(weights, 0.03)
    assert (want - got).abs().mean() < near * want.std()
    kept = {"bfloat16": torch.bfloat16}.get(weights, torch.float32)
    assert next(merged.parameters()).dtype == kept and not merged.training


def test_auto_keeps_weights_as_they_are_stored(project, data_dir):
    config = read_config(data_dir / "stories260K-hf")
    state = load_model(data_dir / "stories260K-hf").state_dict()
    for dtype, kept in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        home = project.root / str(dtype)
        home.mkdir()
        save_model(state, config, home, dtype)
        shutil.copy(data_dir / "stories260K-hf" / "tokenizer.model", home)
        model, _, _ = open_model(project, f"./{home.name}", CPU, weights="auto")
        assert next(model.parameters()).dtype == kept
    with pytest.raises(SpecError, match="weights=int4"):
        open_model(project, f"./{home.name}", CPU, weights="int4")
