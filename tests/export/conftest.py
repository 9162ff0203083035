"""A project with a pretrained run, a fine-tuned one and what they were made from."""

from __future__ import annotations

import ast
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from gptcli.artifacts.build import Build
from gptcli.artifacts.manifest import Input, Inputs, Source, read_manifest
from gptcli.artifacts.project import Project
from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.models.load import save_adapter, save_model
from gptcli.models.lora import LoraConfig, apply_lora, trainable_parameters
from gptcli.tokenize.hf_files import write_tokenizer
from gptcli.tokenize.learning.train import count_words, train_model
from gptcli.tokenizer import Tokenizer

BASE = "runs/base/checkpoints/step-00000020"
ADAPTER = "runs/chat/checkpoints/step-00000005"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    text = Path(ast.__file__).read_text(encoding="utf-8")
    write_tokenizer(directory, train_model(count_words([pa.array([text], pa.large_string())]), vocab_size=600))
    return Tokenizer.load(directory)


def made_corpus(project: Project) -> Input:
    sources = (Source("books/a.txt", 1234, 5, "ab" * 32),)
    place = project.place("corpus", "main")
    build = Build.open(place, kind="corpus", spec={"source": ["books/a.txt"]}, inputs=Inputs((), sources), say=print)
    (build.directory / "train-00000.arrow").write_bytes(b"made for a test")
    manifest = build.commit(
        {"documents": 7, "sources": [{"source": "books/a.txt", "license": "PSF-2.0", "documents": 7}]}, {}
    )
    return Input("corpus", "corpus/main", manifest.content_sha256)


def made_base(project: Project, tokenizer: Tokenizer, tied: bool, dtype: torch.dtype) -> Llama:
    config = LlamaConfig(
        "qwen3", tokenizer.vocab_size, 32, 48, 2, 4, 2, 8, 128, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2
    )
    generator = torch.Generator().manual_seed(4)
    model = Llama(config).eval()
    init_weights(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator))
    inputs = Inputs((made_corpus(project),))
    build = Build.open(project.path(BASE), kind="checkpoint", spec={"lr": 0.02}, inputs=inputs, say=print)
    save_model(model.state_dict(), config, build.directory, dtype)
    tokenizer.copy_to(build.directory)
    (build.directory / "trainer").mkdir()
    (build.directory / "trainer" / "state.json").write_text("{}")
    build.commit({"step": 20, "tokens": 81920, "train_loss": 3.25}, {})
    return model


def made_adapter(project: Project, tokenizer: Tokenizer, model: Llama) -> None:
    lora = LoraConfig(4, 8.0, token_ids=tuple(tokenizer.marker_ids.values()))
    generator = torch.Generator().manual_seed(6)
    apply_lora(model, lora, generator)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.empty(parameter.shape).normal_(0.0, 0.1, generator=generator))
    base = Input("base", BASE, read_manifest(project.path(BASE)).content_sha256)
    build = Build.open(project.path(ADAPTER), kind="checkpoint", spec={"rank": 4}, inputs=Inputs((base,)), say=print)
    save_adapter(model, lora, BASE, build.directory)
    tokenizer.copy_to(build.directory)
    build.commit({"step": 5, "train_loss": 1.5}, {})


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def trained(project: Project, tokenizer: Tokenizer, request: pytest.FixtureRequest) -> Project:
    made_adapter(project, tokenizer, made_base(project, tokenizer, request.param, torch.float32))
    return project
