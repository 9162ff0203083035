"""`gptcli pretrain` beside transformers, litgpt and nanoGPT: same shape, ids and batch, in turn, a process each.

usage: python tests/bench/pretrain_peers.py [DIR] [--shape char,bpe] [--only WHO,…] [--rounds 2] [--steps 5]
           [--seconds 8] [--set KEY=VALUE …]    (default DIR: .bench; --only: names or beginnings of them, below)

char: 6 layers, 6 heads, width 384, 65 characters, 64 rows of 256 a step. bpe: the same, 8,192 pieces, 16 rows of 512.
Width of the MLP 1,024 gated (nanoGPT: its own, 1,536 without a gate: as many parameters); embedding and head tied.
Each peer in fp32 (what transformers and nanoGPT do unless told otherwise; litgpt takes bf16-mixed where no precision
is given) and in its fastest bf16; ours through the command line, as it comes (Muon) and with the peers' rule (AdamW).
The peers' fp32 runs in the first round alone, unless --rounds-of-fp32 says more.

A step's end is when its process has told of it on a terminal. tokens_per_second and cpu_seconds (the whole process
tree's) are of the steps after the first, the former a median; first_step: from the process's start to the end of its
first step; peak_mb: proportional set size of the tree. FLOPs as in gptcli/training/throughput.py, as a share of the
best bf16 product measured just before and after. Ratios count: absolute rates are the moment's.

Peers: environments DIR/transformers and DIR/litgpt, and NANOGPT=FOLDER, a clone of github.com/karpathy/nanoGPT
(default DIR/nanoGPT), run by the environment of transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from characters import character_ids, write_characters
from training_watch import Limit, Watched, watch

from gptcli.artifacts.tokens import TokenStream
from gptcli.models.config import LlamaConfig
from gptcli.training.throughput import flops_per_token, measured_peak

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("GPTCLI_TEST_DATA", HERE.parents[2] / "shared" / "data"))
STAGE = "pretrain beside its peers"
WARM_UP = 1  # steps before any is timed
CPU = torch.device("cpu")
SIZES = {"num_layers": 6, "num_heads": 6, "hidden_size": 384, "intermediate_size": 1024}
SHAPES = {
    "char": {**SIZES, "vocab_size": 65, "seq_len": 256, "sequences": 64},
    "bpe": {**SIZES, "vocab_size": 8192, "seq_len": 512, "sequences": 16},
}
GET = {
    "transformers": "python -m venv DIR/transformers && DIR/transformers/bin/pip install torch transformers accelerate",
    "litgpt": "python -m venv DIR/litgpt && DIR/litgpt/bin/pip install litgpt 'huggingface-hub==1.3.1' jsonargparse",
    "nanogpt": "git clone https://github.com/karpathy/nanoGPT FOLDER, NANOGPT=FOLDER; and what transformers needs",
}


@dataclass(frozen=True)
class Entrant:
    """Who runs, and how; `kind`: ours, fp32 (a peer in it), best (its fastest bf16) or extra (on request)."""

    name: str
    kind: str
    setting: tuple[str, ...]

    @property
    def peer(self) -> str:
        return self.name.partition("/")[0]


ENTRANTS = (
    Entrant("gptcli/muon", "ours", ()),
    Entrant("gptcli/adamw", "ours", ("optimizer=adamw",)),
    Entrant("gptcli/gpt2", "extra", ("optimizer=adamw", "architecture=gpt2")),
    Entrant("transformers/bf16", "best", ("bf16",)),
    Entrant("transformers/bf16-compiled", "extra", ("bf16-compiled",)),
    Entrant("transformers/fp32", "fp32", ("fp32",)),
    Entrant("litgpt/bf16-mixed", "best", ("bf16-mixed",)),
    Entrant("litgpt/32-true", "fp32", ("32-true",)),
    Entrant("nanogpt/bf16-compiled", "best", ("bf16", "True")),
    Entrant("nanogpt/bf16", "extra", ("bf16", "False")),
    Entrant("nanogpt/fp32-compiled", "fp32", ("fp32", "True")),
    Entrant("nanogpt/fp32", "extra", ("fp32", "False")),
)
TURN = (  # of one round: ours between every two peers
    "gptcli/muon", "litgpt/bf16-mixed", "gptcli/adamw", "nanogpt/bf16-compiled", "gptcli/muon", "transformers/bf16",
    "gptcli/adamw", "litgpt/32-true", "nanogpt/fp32-compiled", "transformers/fp32",
)  # fmt: skip
WANTED = {"fp32": 3.0, "best": 1.25}  # times as fast


def tell(**figures: Any) -> None:
    print(json.dumps({"stage": STAGE, **figures}), flush=True)


@dataclass
class Bench:
    """One shape's data, and what every run needs."""

    directory: Path  # of the environments
    shape_name: str
    limit: Limit
    settings: list[str]

    def __post_init__(self) -> None:
        self.shape = SHAPES[self.shape_name]
        self.place = self.directory / "pretrain" / self.shape_name
        self.nanogpt = Path(os.environ.get("NANOGPT", self.directory / "nanoGPT")).resolve()
        self.tokens_per_step = self.shape["seq_len"] * self.shape["sequences"]

    @property
    def ids(self) -> Path:
        return self.place / "train.bin"

    def python(self, peer: str) -> Path:
        return self.directory / {"nanogpt": "transformers"}.get(peer, peer) / "bin" / "python"

    def missing(self, peer: str) -> bool:
        if peer == "gptcli":
            return False
        return not self.python(peer).exists() or (peer == "nanogpt" and not (self.nanogpt / "train.py").is_file())

    def prepare(self) -> None:
        """A project with tokens, made once, and its ids as a flat file for the peers."""
        if self.ids.exists():
            return
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / "recipe.toml").touch()
        if self.shape_name == "char":
            text = (DATA / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
            write_characters(self.place, text)
            character_ids(text)[0].tofile(self.ids)
            return
        for words in (["corpus", "python:stdlib"], ["tokenize", "--vocab-size", str(self.shape["vocab_size"])]):
            command = [sys.executable, "-m", "gptcli", *words, "-C", str(self.place), "--json", "-q"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        stream = TokenStream.open(self.place / "tokens" / "main", "train")
        stream.read(0, len(stream)).astype("uint16").tofile(self.ids)

    def flops(self) -> float:
        """FLOPs of a token of our model; a peer's differs by less than 1 %."""
        sizes = self.shape
        config = LlamaConfig(
            model_type="qwen3",
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_hidden_layers=sizes["num_layers"],
            num_attention_heads=sizes["num_heads"],
            num_key_value_heads=sizes["num_heads"],
            head_dim=sizes["hidden_size"] // sizes["num_heads"],
            max_position_embeddings=sizes["seq_len"],
            tie_word_embeddings=True,
        )
        layer = 4 * sizes["hidden_size"] ** 2 + 3 * sizes["hidden_size"] * sizes["intermediate_size"]
        parameters = sizes["num_layers"] * layer + sizes["vocab_size"] * sizes["hidden_size"]
        return flops_per_token(config, parameters, sizes["seq_len"])

    def run(self, entrant: Entrant) -> Watched:
        runners: dict[str, Callable[[Entrant], Watched]] = {"gptcli": self._ours, "nanogpt": self._nanogpt}
        return runners.get(entrant.peer, self._driven)(entrant)

    def _ours(self, entrant: Entrant) -> Watched:
        shutil.rmtree(self.place / "runs", ignore_errors=True)
        sizes = {key: value for key, value in self.shape.items() if key not in ("vocab_size", "sequences")}
        if "architecture=gpt2" in entrant.setting:
            sizes["intermediate_size"] = 4 * sizes["hidden_size"]
        keys = {**sizes, "global_batch_tokens": self.tokens_per_step, "tie_embeddings": "true"}
        keys |= {"val_every": 0, "save_every": 0}
        settings = [f"{key}={value}" for key, value in keys.items()] + [*entrant.setting, *self.settings]
        words = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "gptcli", "pretrain", "-C", str(self.place), "--device", "cpu"]
        return watch([*command, "--steps", "900", *words], r"\b(\d+)/900 steps", self.limit)

    def _driven(self, entrant: Entrant) -> Watched:
        script = [str(HERE / "pretrain_peer.py"), entrant.peer, entrant.setting[0], json.dumps(self.shape)]
        command = [str(self.python(entrant.peer)), *script, str(self.ids), str(self.place / "out")]
        told = r"\bstep (\d+) \|" if entrant.peer == "litgpt" else r"\bstep (\d+)\s"
        return watch(command, told, self.limit, cwd=self.place, environment=self._compiled(entrant.peer))

    def _nanogpt(self, entrant: Entrant) -> Watched:
        """Its own train.py in a copy; for bf16 with the one line changed that leaves autocast out on a CPU."""
        precision, compiled = entrant.setting
        copy = self.place / "nanogpt"
        (copy / "data" / "bench").mkdir(parents=True, exist_ok=True)
        for name in ("train.py", "model.py", "configurator.py"):
            shutil.copy(self.nanogpt / name, copy / name)
        if precision == "bf16":
            before = (copy / "train.py").read_text()
            after = before.replace("ctx = nullcontext() if device_type == 'cpu' else ", "ctx = ")
            assert after != before, "nanoGPT's train.py has no such line any more"
            (copy / "train.py").write_text(after)
        for split in ("train", "val"):
            shutil.copy(self.ids, copy / "data" / "bench" / f"{split}.bin")
        # It learns the vocabulary's size from a pickled dictionary: {"vocab_size": N} in pickle's protocol 0.
        size = self.shape["vocab_size"]
        (copy / "data" / "bench" / "meta.pkl").write_bytes(f"(dp0\nS'vocab_size'\nI{size}\ns.".encode())
        options = {
            "dataset": "bench",
            "device": "cpu",
            "compile": compiled,
            "eval_iters": 1,
            "eval_interval": 100_000,
            "log_interval": 1,
            "block_size": self.shape["seq_len"],
            "batch_size": self.shape["sequences"],
            "gradient_accumulation_steps": 1,
            "n_layer": self.shape["num_layers"],
            "n_head": self.shape["num_heads"],
            "n_embd": self.shape["hidden_size"],
            "learning_rate": 1e-3,
            "max_iters": 100_000,
            **({"dtype": "bfloat16"} if precision == "bf16" else {}),
        }
        command = [str(self.python("nanogpt")), "train.py", *(f"--{key}={value}" for key, value in options.items())]
        told, environment = r"\biter (\d+): loss", self._compiled("nanogpt")
        return watch(command, told, self.limit, cwd=copy, environment=environment, first=0)

    def _compiled(self, peer: str) -> dict[str, str]:
        """Compiled code lies beside the bench, so that its first run is cold and later ones are as a user's."""
        return {"TORCHINDUCTOR_CACHE_DIR": str(self.directory / "pretrain" / "compiled" / peer)}


def probe() -> dict[str, float]:
    return {"bf16": measured_peak(CPU, torch.bfloat16), "fp32": measured_peak(CPU, torch.float32)}


def measure(bench: Bench, entrant: Entrant, before: dict[str, float], number: int) -> tuple[dict[str, Any], Any]:
    """A run's figures, and the probe after it."""
    seen = bench.run(entrant)
    after = probe()
    rate = bench.tokens_per_step / seen.step_seconds(WARM_UP)
    peak = max(before["bf16"], after["bf16"])
    figures = {
        "shape": bench.shape_name,
        "who": entrant.name,
        "round": number,
        "tokens_per_second": round(rate),
        "cpu_seconds": round(seen.cpu_per_step(WARM_UP), 2),
        "peak_mb": round(seen.peak_bytes / 1e6),
        "first_step": round(seen.first_step_seconds, 1),
        "steps": seen.marks[-1].step,
        "share_of_bf16_peak": round(rate * bench.flops() / peak, 3),
        "bf16_tflops": [round(each["bf16"] / 1e12, 3) for each in (before, after)],
        "fp32_tflops": [round(each["fp32"] / 1e12, 3) for each in (before, after)],
    }
    tell(**figures)
    return figures, after


def compete(bench: Bench, plan: list[tuple[int, Entrant]]) -> list[dict[str, Any]]:
    """Every run of the plan that can be made, in turn; one that fails is told of and does not end the rest."""
    found, last = [], probe()
    for number, entrant in plan:
        try:
            figures, last = measure(bench, entrant, last, number)
            found.append(figures)
        except RuntimeError as error:
            tell(shape=bench.shape_name, who=entrant.name, round=number, failed=str(error)[-1500:])
    return found


def medians(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each entrant's median figures over its rounds; of times to the first step the best, which has caches warm."""
    found = {}
    for name in dict.fromkeys(run["who"] for run in runs):
        own = [run for run in runs if run["who"] == name]
        keys = ("tokens_per_second", "cpu_seconds", "peak_mb", "share_of_bf16_peak")
        found[name] = {key: statistics.median(run[key] for run in own) for key in keys}
        found[name] |= {"first_step": min(run["first_step"] for run in own), "cold": own[0]["first_step"]}
    return found


def table(shape: str, figures: dict[str, dict[str, Any]]) -> None:
    """A row an entrant, then how many times as fast ours are."""
    ours = [name for name in figures if name.startswith("gptcli/")]
    peers = [name for name in figures if name not in ours]
    print(f"\n{shape:26} tokens/s  CPU-s/step    MB  first step (1st)   of bf16 peak  " + "  ".join(ours))
    for name in [*ours, *peers]:
        row = figures[name]
        ratios = [figures[own]["tokens_per_second"] / row["tokens_per_second"] for own in ours if name in peers]
        works = [row["cpu_seconds"] / figures[own]["cpu_seconds"] for own in ours if name in peers]
        pairs = zip(ours, ratios, works, strict=True) if name in peers else ()
        shown = "  ".join(f"{f'{rate:.2f}× ({work:.2f}×)':>{len(own)}}" for own, rate, work in pairs)
        print(
            f"{name:26} {row['tokens_per_second']:8.0f} {row['cpu_seconds']:11.2f} {row['peak_mb']:5.0f}"
            f" {row['first_step']:9.1f} ({row['cold']:5.1f}) {100 * row['share_of_bf16_peak']:11.1f} %  {shown}"
        )
    print("times as fast, and in brackets by CPU seconds; wanted:", WANTED, flush=True)
    for name in peers:
        kind = next(entrant.kind for entrant in ENTRANTS if entrant.name == name)
        for own in ours:
            ratio = round(figures[own]["tokens_per_second"] / figures[name]["tokens_per_second"], 2)
            tell(shape=shape, ours=own, peer=name, times_as_fast=ratio, wanted=WANTED.get(kind))


def planned(bench: Bench, only: list[str], rounds: int, of_fp32: int) -> list[tuple[int, Entrant]]:
    """(round, entrant) in order; who was asked for by name and is in no turn comes at each round's end."""
    known = {entrant.name: entrant for entrant in ENTRANTS}
    wanted = [name for name in known if not only or any(name.startswith(each) for each in only)]
    extra = [name for name in wanted if only and name not in TURN]
    plan = []
    for number in range(1, rounds + 1):
        for name in (*TURN, *extra):
            entrant = known[name]
            late = entrant.kind == "fp32" and number > of_fp32
            if name in wanted and not late and not bench.missing(entrant.peer):
                plan.append((number, entrant))
    return plan


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".bench"))
    parser.add_argument("--shape", default="char,bpe")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rounds-of-fp32", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="timed in a run, at most")
    parser.add_argument("--seconds", type=float, default=8, help="of timed steps after which a run has done enough")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="for ours")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    for shape in given.shape.split(","):
        bench = Bench(given.directory.resolve(), shape, Limit(WARM_UP, given.steps, given.seconds), given.settings)
        for peer, way in GET.items():
            if bench.missing(peer):
                tell(peer=peer, skipped="not there", get=way.replace("DIR", str(given.directory)))
        bench.prepare()
        only = [name for name in given.only.split(",") if name]
        plan = planned(bench, only, given.rounds, given.rounds_of_fp32)
        tell(shape=shape, threads=torch.get_num_threads(), tokens_per_step=bench.tokens_per_step, runs=len(plan))
        runs = compete(bench, plan)
        if runs:
            table(shape, medians(runs))


if __name__ == "__main__":
    main()
