"""A really trained tiny model, asked one request at a time, and tasks written as people write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from gptcli.models.family import CausalLM
from gptcli.models.load import load_model
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Likelihood, LikelihoodAnswer, Request
from gptcli.scoring.tasks.posing import Manner, TokenPosing
from gptcli.scoring.tasks.reading import read_task, task_inputs
from gptcli.scoring.tasks.rows import TaskRows, read_rows
from gptcli.scoring.tasks.running import run_task
from gptcli.scoring.tasks.task import Task
from gptcli.tokenizer import Tokenizer


@dataclass
class OneByOne:
    """Likelihoods by the plainest way there is: a forward pass a request, the softmax of its logits read off."""

    model: CausalLM
    asked: list[Likelihood] = field(default_factory=list)

    def answer(self, requests: Sequence[Request], advance: Callable[[int], None] | None = None) -> list[Answer]:
        found: list[Answer] = []
        for request in requests:
            assert isinstance(request, Likelihood)
            self.asked.append(request)
            found.append(self._one(request))
            if advance is not None:
                advance(1)
        return found

    @torch.inference_mode()
    def _one(self, request: Likelihood) -> LikelihoodAnswer:
        whole = [*request.context, *request.continuation]
        ids = torch.tensor(whole[-(self.model.config.max_position_embeddings + 1) :])
        count = len(request.continuation)
        logits = self.model.hidden(ids[None, :-1])[0, -count:] @ self.model.head_weight.T
        targets = ids[-count:]
        logprobs = torch.log_softmax(logits.double(), -1).gather(1, targets[:, None])
        greedy = bool((logits.argmax(-1) == targets).all())
        return LikelihoodAnswer(float(logprobs.sum()), greedy, count, len(whole) - len(ids))


@dataclass
class Run:
    """A task that ran."""

    task: Task
    judged: list[Judged]
    rows: TaskRows
    asked: list[Likelihood]

    @property
    def figures(self) -> dict[str, float]:
        return self.task.figures(self.judged)


@pytest.fixture(scope="session")
def stories_tokenizer(data_dir: Path) -> Tokenizer:
    return Tokenizer.load(data_dir / "stories260K-hf")


@pytest.fixture(scope="session")
def stories_model(data_dir: Path) -> CausalLM:
    return load_model(data_dir / "stories260K-hf")


Runner = Callable[..., Run]


@pytest.fixture
def run_toml(tmp_path: Path, stories_model: CausalLM, stories_tokenizer: Tokenizer) -> Runner:
    """Runs a task given as the text of its TOML, its files beside it."""

    def run(
        toml: str,
        files: Mapping[str, str] | None = None,
        *,
        chat_tuned: bool = False,
        known: Mapping[str, Judged] | None = None,
        group: int = 256,
    ) -> Run:
        path = tmp_path / "asked.toml"
        path.write_text(toml, encoding="utf-8")
        for name, text in (files or {}).items():
            (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        task = read_task(path)
        rows = read_rows(task, task_inputs(task, tmp_path, tmp_path))
        engine = OneByOne(stories_model)
        posing = TokenPosing(stories_tokenizer, Manner.of(task, chat_tuned))
        groups = run_task(task, rows, posing, engine, known=known, group=group)
        return Run(task, [row for judged in groups for row in judged], rows, engine.asked)

    return run
