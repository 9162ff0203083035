"""Tasks scored by log-likelihood beside lm-evaluation-harness's `hf` model: same directory, items and fp32, two cores.

usage: python tests/bench/eval_peers.py [DIR] [--models 260k,5m] [--limit 0] [--batch-sizes 1,16] [--rounds 1]
       [--tasks blimp,arc_easy,piqa,copa]    (default DIR: .bench/eval, where the 5M model and the tasks are made)

The peer's environment: `python -m venv .bench/lmeval && .bench/lmeval/bin/pip install -c constraints.txt 'lm-eval[hf]'
sentencepiece protobuf`. Each run is a process of its own, from its start to the figures: imports, model, tokenization
and scoring. The harness's default batch size is 1; --batch-sizes says which it runs with, and ours is held against its
best. --limit: items a task (0: all; BLiMP 1,000 pairs of each of two phenomena). Accuracies agree but
for items with runs of spaces, where transformers' form of a sentencepiece tokenizer keeps each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("GPTCLI_TEST_DATA", HERE.parents[2] / "shared" / "data"))
PEER = Path(os.environ.get("GPTCLI_PEERS", ".bench")).resolve() / "lmeval" / "bin" / "lm_eval"
STAGE = "eval beside its peers"
WANTED = 5  # times as fast
SMALL = "stories260K-hf"
LONGEST = 600  # characters of a choice: the peer refuses one that is longer than the context, 512 tokens
TASKS = ("blimp", "arc_easy", "piqa", "copa")
YAML = """task: bench_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_choice: choices
doc_to_target: gold
target_delimiter: "{delimiter}"
num_fewshot: 0
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
CHOICES = """kind = "multiple_choice"
data = "{name}.jsonl"
prompt = "{{query}}\\nAnswer:"
choices = "choices"
answer = "gold"
"""
PAIRS = """kind = "minimal_pairs"
data = "{name}.jsonl"
good = "{{choices.0}}"
bad = "{{choices.1}}"
"""


def tell(**figures: Any) -> None:
    print(json.dumps({"stage": STAGE, **figures}), flush=True)


def rows(task: str) -> list[dict[str, Any]]:
    """{query, choices, gold} of a task's published files."""
    if task != "blimp":
        lines = (DATA / "eval-mc-dev" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    files = sorted((DATA / "blimp-dev").glob("*.jsonl"))
    pairs = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [{"query": "", "choices": [pair["sentence_good"], pair["sentence_bad"]], "gold": 0} for pair in pairs]


def prepare(directory: Path, tasks: list[str], limit: int) -> None:
    """The tasks as files, for both."""
    directory.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        found, file = rows(task), directory / f"{task}.jsonl"
        found = [row for row in found if max(map(len, row["choices"])) <= LONGEST]
        # Of BLiMP's files some of each.
        step = max(len(found) // limit, 1) if limit else 1
        kept = found[::step][: limit or None]
        file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        text, delimiter = ("", "") if task == "blimp" else ("{{query}}\\nAnswer:", " ")
        yaml = YAML.format(name=task, file=file, text=text, delimiter=delimiter)
        (directory / f"{task}.yaml").write_text(yaml, encoding="utf-8")
        (directory / f"{task}.toml").write_text((PAIRS if task == "blimp" else CHOICES).format(name=task))


def model_directory(directory: Path, name: str) -> Path:
    """The published 260K model, or one of 5M parameters at random with its tokenizer, made once."""
    if name == "260k":
        return DATA / SMALL
    place = directory / name
    if not (place / "config.json").exists():
        import torch

        from gptcli.models.family import build_model, sized_config
        from gptcli.models.load import save_model
        from gptcli.tokenizer import Tokenizer

        torch.manual_seed(0)
        sizes = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 688, "num_layers": 6, "num_heads": 8}
        ids = {"bos_id": 1, "eos_id": 2, "pad_id": None}
        more = {"num_kv_heads": 8, "head_dim": 32, "max_positions": 1024, "rope_theta": 1e4, "tie_embeddings": True}
        config = sized_config("llama", **sizes, **ids, **more)  # type: ignore[arg-type]
        place.mkdir(parents=True)
        Tokenizer.load(DATA / SMALL).copy_to(place, 1024)
        save_model(build_model(config).state_dict(), config, place)
    return place


def ours(model: Path, directory: Path, tasks: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds and accuracies of `gptcli eval`, in a project where nothing is kept from an earlier run."""
    from process_tree import measure

    project = directory / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    words = [word for task in tasks for word in ("--task", str(directory / f"{task}.toml"))]
    command = [sys.executable, "-m", "gptcli", "eval", str(model), *words, "--set", "dtype=float32"]
    run = measure([*command, "--device", "cpu", "--name", "ours", "--json", "-C", str(project)])
    figures = json.loads(run.stdout)
    return run.seconds, {task: figures[f"{task}.acc"] for task in tasks}


def theirs(model: Path, directory: Path, tasks: list[str], batch_size: int) -> tuple[float, dict[str, float]]:
    """Seconds and accuracies of the harness's own command."""
    from process_tree import measure

    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_CACHE=str(directory / "cache"))
    out = directory / f"results-{batch_size}"
    words = ["--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu"]
    words += ["--tasks", ",".join(f"bench_{task}" for task in tasks), "--include_path", str(directory)]
    run = measure([str(PEER), *words, "--batch_size", str(batch_size), "--output_path", str(out)])
    newest = max(out.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    results = json.loads(newest.read_text(encoding="utf-8"))["results"]
    return run.seconds, {task: results[f"bench_{task}"]["acc,none"] for task in tasks}


def compare(directory: Path, name: str, tasks: list[str], batch_sizes: list[int], rounds: int) -> None:
    """Both in turn; the best of each is compared."""
    model = model_directory(directory, name)
    best: dict[str, float] = {}
    for number in range(1, rounds + 1):
        for who in ["gptcli", *(f"lm-eval/{size}" for size in batch_sizes)]:
            if who == "gptcli":
                seconds, figures = ours(model, directory, tasks)
            else:
                seconds, figures = theirs(model, directory, tasks, int(who.partition("/")[2]))
            best[who] = min(best.get(who, seconds), seconds)
            tell(model=name, who=who, round=number, seconds=round(seconds, 1), **figures)
    own = best.pop("gptcli")
    for who, seconds in best.items():
        tell(model=name, peer=who, times_as_fast=round(seconds / own, 2), wanted=WANTED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".bench/eval"))
    parser.add_argument("--models", default="260k,5m")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--batch-sizes", default="1,16")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    if not PEER.exists():
        tell(skipped="lm-eval is not there", get=f"see the head of {Path(__file__).name}")
        return
    directory, tasks = given.directory.resolve(), given.tasks.split(",")
    prepare(directory, tasks, given.limit)
    for name in given.models.split(","):
        compare(directory, name, tasks, [int(size) for size in given.batch_sizes.split(",")], given.rounds)


if __name__ == "__main__":
    main()
