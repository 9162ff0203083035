"""Generation beside transformers' `generate`: one llama of 100M random weights, in turn, a process each.

usage: python tests/bench/generate_peers.py [DIR] [--rounds 1] [--threads 2] [--prompt 64] [--new 32]
           [--batch 1,16] [--only WHO,…]        (default DIR: .bench; the model is made in DIR/generate, once)

12 layers, width 768, 12 heads, MLP 2,048 gated, 32,000 ids, head tied, stored in float32. Greedy, as many new tokens as
told, no stop. transformers by the Python of DIR/transformers, in the precision it takes of itself for this directory
(float32) and in bfloat16, with its own cache; ours in float32, bfloat16 and int8 weights. A process generates once to
warm up, then three times one token (prefill) and three times all (decode: what the others take); the best counts.

floor: what reading the weights once costs at the bandwidth measured in the same process (a sum of 400 MB), per token
of batch 1. Ratios count: absolute rates are the moment's. peak_mb: the process's largest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STAGE = "generation beside its peers"
ENTRANTS = (
    "gptcli/float32", "transformers/float32", "gptcli/bfloat16", "transformers/bfloat16", "gptcli/int8",
)  # fmt: skip
VOCABULARY = 32000
GET = "python -m venv DIR/transformers && DIR/transformers/bin/pip install torch transformers accelerate"


def tell(**figures: Any) -> None:
    print(json.dumps({"stage": STAGE, **figures}), flush=True)


def make_model(directory: Path) -> None:
    """Random weights large enough that tokens depend on those before them."""
    import torch

    from gptcli.models.config import LlamaConfig
    from gptcli.models.family import build_model
    from gptcli.models.load import save_model

    config = LlamaConfig("llama", VOCABULARY, 768, 2048, 12, 12, 12, 64, 2048, tie_word_embeddings=True)
    model, generator = build_model(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.03, generator=generator)
    directory.mkdir(parents=True)
    save_model(model.state_dict(), config, directory)


class Theirs:
    def __init__(self, directory: Path, precision: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        chosen = {} if precision == "float32" else {"dtype": torch.bfloat16}
        self.model = AutoModelForCausalLM.from_pretrained(directory, **chosen)
        assert str(self.model.dtype) == f"torch.{precision}"
        self.model.generation_config.pad_token_id = 0

    def generate(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        import torch

        ids = torch.tensor(prompts)
        options = {"max_new_tokens": count, "do_sample": False, "attention_mask": torch.ones_like(ids)}
        found: list[list[int]] = self.model.generate(ids, **options)[:, ids.shape[1] :].tolist()
        return found


class NoText:
    """A decoder of ids that have no text."""

    def feed(self, token_id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


class NoTokenizer:
    def decoder(self) -> NoText:
        return NoText()


class Ours:
    def __init__(self, directory: Path, precision: str) -> None:
        import torch

        from gptcli.models.load import load_model
        from gptcli.models.quantized import quantize_model

        self.model = load_model(directory, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
        if precision == "int8":
            quantize_model(self.model)

    def generate(self, prompts: list[list[int]], count: int) -> list[list[int]]:
        from gptcli.inference.batch import generate_batch
        from gptcli.inference.sampling import Sampling

        settings = Sampling(temperature=0.0, max_tokens=count)
        tokenizer: Any = NoTokenizer()
        return [list(found.ids) for found in generate_batch(self.model, tokenizer, prompts, settings, stop_ids=())]


def run(who: str, directory: Path, batch: int, prompt: int, new: int) -> None:
    """One process: an entrant's figures, told as JSON."""
    import torch

    peer, _, precision = who.partition("/")
    model: Theirs | Ours = Theirs(directory, precision) if peer == "transformers" else Ours(directory, precision)
    draw = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, VOCABULARY, (batch, prompt), generator=draw).tolist()
    model.generate(prompts, 2)
    times: dict[int, list[float]] = {1: [], new: []}
    for _ in range(3):
        for count, found in times.items():
            began = time.perf_counter()
            texts = model.generate(prompts, count)
            found.append(time.perf_counter() - began)
    prefill, whole = min(times[1]), min(times[new])
    assert all(len(text) == new for text in texts)
    figures = {
        "prefill": round(batch * prompt / prefill),
        "decode": round(batch * (new - 1) / (whole - prefill), 1),
        "step_ms": round(1e3 * (whole - prefill) / (new - 1), 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "gb_per_second": round(bandwidth(), 1),
        "first": texts[0][:8],
    }
    print(json.dumps(figures))


def bandwidth() -> float:
    """10⁹ bytes a second that all threads read."""
    import torch

    numbers, best = torch.ones(100_000_000), 1e9
    for _ in range(5):
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return 0.4 / best


def measure(given: argparse.Namespace, who: str, batch: int) -> dict[str, Any]:
    peers = given.directory / "transformers" / "bin" / "python"
    python = peers if who.startswith("transformers") else Path(sys.executable)
    sizes = [str(each) for each in (batch, given.prompt, given.new)]
    command = [str(python), str(Path(__file__).resolve()), "--run", who, *sizes, str(given.directory / "generate")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(HERE.parents[1])
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(batch: int, figures: dict[str, list[dict[str, Any]]]) -> None:
    """Medians of the rounds, and how many times as fast ours are."""
    middle = {
        who: {key: statistics.median(run[key] for run in runs) for key in ("prefill", "decode", "step_ms", "peak_mb")}
        for who, runs in figures.items()
    }
    peers = [who for who in middle if who.startswith("transformers")]
    print(f"\nbatch {batch:<16} prefill/s  decode/s  ms a step     MB  " + "  ".join(peers))
    for who, row in middle.items():
        ratios = "  ".join(f"{row['decode'] / middle[peer]['decode']:.2f}×".rjust(len(peer)) for peer in peers)
        numbers = f"{row['prefill']:9.0f} {row['decode']:9.1f} {row['step_ms']:10.2f} {row['peak_mb']:6.0f}"
        print(f"{who:22} {numbers}  {ratios}")
        for peer in peers:
            if who not in peers:
                rates = {key: round(row[key] / middle[peer][key], 2) for key in ("prefill", "decode")}
                tell(batch=batch, ours=who, peer=peer, times_as_fast=rates, wanted=3)


def compete(given: argparse.Namespace) -> None:
    names = [who for who in ENTRANTS if not given.only or any(who.startswith(each) for each in given.only.split(","))]
    if not (given.directory / "transformers" / "bin" / "python").exists():
        tell(skipped="transformers", get=GET.replace("DIR", str(given.directory)))
        names = [who for who in names if not who.startswith("transformers")]
    if not (given.directory / "generate" / "config.json").exists():
        make_model(given.directory / "generate")
    weights = (given.directory / "generate" / "model.safetensors").stat().st_size
    for batch in (int(each) for each in given.batch.split(",")):
        figures: dict[str, list[dict[str, Any]]] = {who: [] for who in names}
        for number in range(1, given.rounds + 1):
            for who in names:
                found = measure(given, who, batch)
                share = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.25}[who.partition("/")[2]]
                floor = 1e3 * weights * share / (found["gb_per_second"] * 1e9)
                tell(batch=batch, who=who, round=number, **found, floor_ms=round(floor, 2))
                figures[who].append(found)
        table(batch, figures)


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        who, batch, prompt, new, directory = sys.argv[2:]
        run(who, Path(directory), int(batch), int(prompt), int(new))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=32, help="tokens to generate")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    given.directory = given.directory.resolve()
    compete(given)


if __name__ == "__main__":
    main()
