"""Our engine beside lm-evaluation-harness's own `hf` model: the same items, the same directory, fp32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.errors import SpecError
from gptcli.models.load import load_model
from gptcli.scoring.engine import Engine
from gptcli.scoring.harness import run_harness
from gptcli.scoring.requests import Likelihood, LikelihoodAnswer
from gptcli.tokenizer import Tokenizer

CPU = torch.device("cpu")

YAML = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
target_delimiter: " "
num_fewshot: 0
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 3.0}}
"""


@pytest.fixture(scope="module")
def directory(data_dir: Path) -> Path:
    return data_dir / "stories260K-hf"


@pytest.fixture(scope="module")
def hf(directory: Path) -> Any:
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=16)


@pytest.fixture(scope="module")
def engine(directory: Path) -> Engine:
    tokenizer = Tokenizer.load(directory)
    ends = frozenset({tokenizer.eos_id})
    return Engine(load_model(directory), tokenizer, device=CPU, dtype=torch.float32, stop_ids=ends)


def items(data_dir: Path, count: int) -> Iterator[tuple[str, str, list[str]]]:
    """(task, context, continuations); a run of spaces is left out, in which transformers keeps each space of a
    sentencepiece model whose own rule makes them one."""
    for name in ("arc_easy", "piqa", "copa"):
        lines = (data_dir / "eval-mc-dev" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for row in map(json.loads, lines[:count]):
            if "  " not in json.dumps(row):
                yield name, f"{row['query']}\nAnswer:", [f" {choice}" for choice in row["choices"]]
    for line in (data_dir / "eval-mc-dev" / "lambada_openai_small.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "  " not in line:
            yield "lambada", row["context"], [f" {row['continuation']}"]
    for path in sorted((data_dir / "blimp-dev").glob("*.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()[:count]):
            yield "blimp", "", [row["sentence_good"], row["sentence_bad"]]
    yield "spaces", "Once upon a time ", ["there was", "there were"]  # the context's space goes to the continuation


def pair(tokenizer: Tokenizer, context: str, continuation: str) -> Likelihood:
    bos = (tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id,)
    kept = context.rstrip()
    whole, before = tokenizer.encode(context + continuation), tokenizer.encode(kept)
    return Likelihood((*bos, *whole[: len(before)]), tuple(whole[len(before) :]))


@pytest.mark.parametrize("count", [12, pytest.param(3000, marks=pytest.mark.faults)])
def test_log_likelihoods_and_choices_are_the_same(data_dir: Path, hf: Any, engine: Engine, count: int) -> None:
    from lm_eval.api.instance import Instance

    posed = list(items(data_dir, count))
    texts = [(context, choice) for _, context, choices in posed for choice in choices]
    theirs = hf.loglikelihood(
        [Instance("loglikelihood", {}, (context, choice), number) for number, (context, choice) in enumerate(texts)],
        disable_tqdm=True,
    )
    ours = engine.answer([pair(engine.tokenizer, context, choice) for context, choice in texts])
    for (logprob, greedy), answer, text in zip(theirs, ours, texts, strict=True):
        assert isinstance(answer, LikelihoodAnswer)
        assert abs(answer.logprob - logprob) < 1e-3, text
        assert answer.greedy == greedy, text


def write_tasks(folder: Path, data_dir: Path) -> list[str]:
    names = ["arc_easy", "piqa", "copa"]
    for name in names:
        lines = (data_dir / "eval-mc-dev" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if "  " not in line][:12]
        (folder / f"{name}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
        text = YAML.format(name=f"local_{name}", file=folder / f"{name}.jsonl")
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return [f"local_{name}" for name in names]


def test_harness_gives_our_model_the_figures_of_its_own(
    data_dir: Path, hf: Any, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    names = write_tasks(tmp_path, data_dir)
    run = run_harness(names, engine.tokenizer, engine, max_positions=512, include_path=tmp_path, offline=True)
    theirs = simple_evaluate(
        model=hf,
        tasks=names,
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    for name in names:
        for metric in ("acc", "acc_norm"):
            assert run.figures[f"{name}.{metric}"] == theirs["results"][name][f"{metric},none"]
        assert (run.versions[name], run.shots[name], len(run.samples[name])) == (3.0, 0, 12)
    limited = run_harness(
        names[:1], engine.tokenizer, engine, max_positions=512, include_path=tmp_path, limit=5, num_fewshot=0, chat=True
    )
    assert len(limited.samples[names[0]]) == 5
    rolled = [run_rolling(model) for model in (hf, our_model(engine))]
    assert rolled[0] == pytest.approx(rolled[1], abs=2e-2)  # hundreds of tokens each


def our_model(engine: Engine) -> Any:
    from gptcli.scoring.harness import _model_class

    return _model_class()(engine.tokenizer, engine, 512)


def run_rolling(model: Any) -> list[float]:
    from lm_eval.api.instance import Instance

    texts = ["Once upon a time, there was a girl.", "The cat sat on the mat. " * 120]
    asked = [Instance("loglikelihood_rolling", {}, (text.strip(),), number) for number, text in enumerate(texts)]
    found: list[float] = model.loglikelihood_rolling(asked, disable_tqdm=True)
    return found


def test_completions_are_the_same(hf: Any, engine: Engine) -> None:
    from lm_eval.api.instance import Instance

    wanted = {"until": ["."], "max_gen_toks": 24, "do_sample": False}
    prompts = ["Once upon a time", "Lily and her mother", "One day"]
    asked = [Instance("generate_until", {}, (text, dict(wanted)), number) for number, text in enumerate(prompts)]
    theirs = [text.strip() for text in hf.generate_until(asked, disable_tqdm=True)]
    assert [text.strip() for text in our_model(engine).generate_until(asked)] == theirs


@pytest.mark.faults  # the whole catalogue is read
def test_a_task_that_is_not_there_is_named(engine: Engine) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(SpecError, match="no task 'helaswag'") as caught:
        run_harness(["helaswag"], engine.tokenizer, engine, max_positions=512, offline=True)
    assert "hellaswag" in caught.value.hint
