"""Classification and generation on real data and a really trained model, from the TOML to the figures."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from gptcli.errors import SpecError
from gptcli.inference.generate import generate
from gptcli.inference.sampling import Sampling
from gptcli.models.family import CausalLM
from gptcli.models.load import load_model
from gptcli.scoring.engine import Engine
from gptcli.scoring.judged import Judged
from gptcli.scoring.requests import Answer, Completion, CompletionAnswer, Likelihood, LikelihoodAnswer, Request
from gptcli.scoring.tasks.posing import Manner, TokenPosing
from gptcli.scoring.tasks.reading import read_task, task_inputs
from gptcli.scoring.tasks.rows import read_rows
from gptcli.scoring.tasks.running import run_task
from gptcli.scoring.tasks.task import Task
from gptcli.tokenizer import Tokenizer


class PlainEngine:
    """Each request by itself, through the whole model: slow, and nothing in it to go wrong."""

    def __init__(self, model: CausalLM, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def answer(self, requests: Sequence[Request], advance: Callable[[int], None] | None = None) -> list[Answer]:
        with torch.inference_mode():
            return [self._likelihood(r) if isinstance(r, Likelihood) else self._completion(r) for r in requests]

    def _likelihood(self, request: Likelihood) -> LikelihoodAnswer:
        count = len(request.continuation)
        ids = (*request.context, *request.continuation)[-self.model.config.max_position_embeddings - 1 :]
        hidden = self.model.hidden(torch.tensor([ids[:-1]]))[0, -count:]
        logprobs = (hidden @ self.model.head_weight.T).double().log_softmax(-1)
        own = logprobs[torch.arange(count), torch.tensor(request.continuation)]
        return LikelihoodAnswer(
            float(own.sum()), bool((logprobs.argmax(-1) == torch.tensor(ids[-count:])).all()), count
        )

    def _completion(self, request: Completion) -> CompletionAnswer:
        limit = self.model.config.max_position_embeddings - request.max_tokens
        prompt = request.prompt[-limit:]
        settings = Sampling(temperature=0.0, max_tokens=request.max_tokens)
        ids = generate(self.model, prompt, settings, (self.tokenizer.eos_id,))
        text = self.tokenizer.decode([*prompt, *ids])[len(self.tokenizer.decode(list(prompt))) :]
        ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        finished = bool(ends) or len(ids) < request.max_tokens
        return CompletionAnswer(
            text[: min(ends, default=len(text))], len(ids), finished, len(request.prompt) - len(prompt)
        )


@pytest.fixture(scope="module")
def plain(data_dir: Path) -> PlainEngine:
    home = data_dir / "stories260K-hf"
    model = load_model(home, device=torch.device("cpu"), dtype=torch.float32)
    return PlainEngine(model.eval(), Tokenizer.load(home))


@pytest.fixture(scope="module")
def engine(plain: PlainEngine) -> Engine:
    device, eos = torch.device("cpu"), plain.tokenizer.eos_id
    return Engine(plain.model, plain.tokenizer, device=device, dtype=torch.float32, stop_ids={eos})


def run(engine: Engine | PlainEngine, folder: Path, toml: str) -> tuple[Task, list[Judged], dict[str, int]]:
    """The task as prepared, its items judged, and the rows left out."""
    path = folder / "task.toml"
    path.write_text(toml, encoding="utf-8")
    task = read_task(path)
    rows = read_rows(task, task_inputs(task, folder, folder))
    task = task.prepared(row.value for row in rows.items)
    posing = TokenPosing(engine.tokenizer, Manner.of(task, chat_tuned=False))
    judged = [row for group in run_task(task, rows, posing, engine) for row in group]
    return task, judged, rows.left_out.counts


def labels_of(tables: dict[str, Any]) -> list[str]:
    return [row[0] for row in tables["classes"]["rows"]]


def test_sms_spam_by_likelihood(engine: Engine, plain: PlainEngine, data_dir: Path, tmp_path: Path) -> None:
    toml = f"""
        kind = "classification"
        data = '{data_dir / "sms-spam" / "sms.tsv"}'
        columns = ["kind", "text"]
        header = false
        prompt = "Message: {{text}}\\nKind of message:"
        label = "kind"
        limit = 24
    """
    task, judged, left_out = run(engine, tmp_path, toml)
    lines = (data_dir / "sms-spam" / "sms.tsv").read_text(encoding="utf-8").splitlines()[:24]
    assert [row.answer for row in judged] == [line.split("\t")[0] for line in lines] and not left_out
    assert all(row.prediction == max(zip(row.logprobs, ("ham", "spam"), strict=True))[1] for row in judged)
    figures, tables = task.figures(judged), task.tables(judged)
    assert labels_of(tables) == ["ham", "spam"] and figures["invalid"] == 0.0
    assert figures["acc"] == sum(row.answer == row.prediction for row in judged) / 24
    # The same by each request alone.
    _, alone, _ = run(plain, tmp_path, toml)
    assert [row.prediction for row in alone] == [row.prediction for row in judged]
    for one, other in zip(judged, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_a_prior_moves_the_predictions_and_leaves_the_items(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    lines = (data_dir / "sms-spam" / "sms.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "sms.tsv").write_text("".join(lines[:60]), encoding="utf-8")
    toml = """
        kind = "classification"
        data = "sms.tsv"
        label = "0"
        prompt = "{1}\\nThis is"
        labels = {ham = "a message from a friend", spam = "spam"}
        norm = "bytes"
        shots = 1
        limit = 16
    """
    task, judged, _ = run(engine, tmp_path, toml)
    corrected, again, _ = run(engine, tmp_path, toml + '\nprior = "content_free"\ncontent_free = ["N/A", ""]')
    assert [row.item for row in again] == [row.item for row in judged]
    first, *others = (
        [before - after for before, after in zip(x.logprobs, y.logprobs, strict=True)]
        for x, y in zip(judged, again, strict=True)
    )
    # One correction for every item, since all stand behind the same example: the log of a share a label.
    assert all(other == pytest.approx(first, abs=2e-4) for other in others)
    assert math.fsum(math.exp(each) for each in first) == pytest.approx(1.0, abs=1e-3)
    assert "'N/A' / ''" in corrected.tables(again)["method"] and "per byte" in task.tables(judged)["method"]


def test_banking77_has_77_classes(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    """The limit cuts the items, not the labels, which are those of all rows."""
    toml = f"""
        kind = "classification"
        data = '{data_dir / "banking77" / "test.csv"}'
        prompt = "{{text}}\\nAbout:"
        label = "category"
        limit = 3
    """
    task, judged, _ = run(engine, tmp_path, toml)
    with (data_dir / "banking77" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["category"] for row in rows})
    tables = task.tables(judged)
    assert len(labels) == 77 and labels_of(tables) == labels
    assert [row.prompt for row in judged] == [f"{row['text']}\nAbout:" for row in rows[:3]]
    assert all(len(row.logprobs) == 77 for row in judged) and len(tables["confusion"]["rows"][0]) == 1 + 77 + 1
    assert "classes without items" in tables["zero_division"]


def test_angry_tweets_by_generation(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    """A story teller has no Danish labels to say: every answer is invalid, and told as such."""
    table = data_dir / "parquet-angry-tweets" / "test-00000-of-00001.parquet"
    toml = f"""
        kind = "classification"
        data = '{table}'
        prompt = "{{text}}\\nStemning:"
        method = "generation"
        max_tokens = 8
        shots = 2
        limit = 6
    """
    task, judged, _ = run(engine, tmp_path, toml)
    answers = [row["label"] for row in pq.read_table(table).slice(0, 6).to_pylist()]
    assert [row.answer for row in judged] == answers
    figures, tables = task.figures(judged), task.tables(judged)
    assert labels_of(tables) == ["negativ", "neutral", "positiv"]
    assert figures["invalid"] == sum(row.prediction not in ("negativ", "neutral", "positiv") for row in judged) / 6
    by_answer = {row[0]: row[1:] for row in tables["confusion"]["rows"]}
    assert {label: sum(counts) for label, counts in by_answer.items() if sum(counts)} == Counter(answers)
    assert sum(counts[-1] for counts in by_answer.values()) == round(6 * figures["invalid"])


def test_gsm8k(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    toml = f"""
        kind = "generation"
        data = '{data_dir / "gsm8k-train" / "train.jsonl"}'
        prompt = "Question: {{question}}\\nAnswer:"
        answer = "answer"
        metrics = ["numeric", "exact_match"]
        extract = '#### (-?[0-9.,]+)'
        extract_answer = '#### (.+)'
        stop = "Question:"
        max_tokens = 12
        limit = 4
    """
    task, judged, left_out = run(engine, tmp_path, toml)
    assert [row.answer for row in judged] == ["72", "10", "5", "42"] and not left_out
    assert task.figures(judged) == {"numeric": 0.0, "exact_match": 0.0, "unmatched": 1.0, "unfinished": 1.0}


def test_a_story_goes_on_as_it_was_learned(engine: Engine, tmp_path: Path) -> None:
    """The model's own greedy words are found right by every metric."""
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    prompt = "Once upon a time, there was a little girl named Lily. She"
    (own,) = engine.answer([Completion((1, *engine.tokenizer.encode(prompt)), 24, (".",))])
    assert isinstance(own, CompletionAnswer) and own.finished and len(own.text.split()) > 3
    rows = [{"begin": prompt, "end": ["something else", own.text]}, {"begin": prompt, "end": "Zog the 7th of Mars"}]
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    toml = """
        kind = "generation"
        data = "stories.jsonl"
        prompt = "{begin}"
        answer = "end"
        metrics = ["exact_match", "token_f1", "rouge", "bleu", "chrf"]
        stop = "."
        max_tokens = 24
    """
    task, judged, _ = run(engine, tmp_path, toml)
    assert [row.scores["exact_match"] for row in judged] == [1.0, 0.0]
    figures, alone = task.figures(judged), task.figures(judged[:1])
    assert alone["bleu"] == pytest.approx(100.0) and alone["chrf"] == pytest.approx(100.0) and alone["rougeL"] == 1.0
    assert 0 < figures["chrf"] < 100 and figures["exact_match"] == 0.5 and figures["unfinished"] == 0.0


def test_a_wrong_label_field_is_told(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    toml = f"""
        kind = "classification"
        data = '{data_dir / "banking77" / "test.csv"}'
        prompt = "{{text}}"
        label = "intent"
    """
    with pytest.raises(SpecError, match="field intent of the data holds no label"):
        run(engine, tmp_path, toml)
