"""Every stage on the Python standard library, one JSON line each.

usage: python tests/bench/stages.py [DIR]    (default: .bench/stages, made anew)

Stages run as a user runs them, as processes. The rates are the stages' own where they measure one (pretrain's and
finetune-lora's median over their steps; FLOPs as in gptcli/training/throughput.py), else work over wall time, start-up
included. Compare ratios within a run, not figures of two machines or two moments.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS = 40
HELP_RUNS = 9
SETTINGS = ["--set", "val_every=0", "--set", "save_every=0"]


def gptcli(project: Path, *words: str) -> tuple[dict[str, Any], float]:
    """A command's JSON report and its wall time in seconds; raises CalledProcessError when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gptcli", *words, "-C", str(project), "--json", "-q"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout), time.perf_counter() - started


def line(stage: str, **figures: Any) -> None:
    print(json.dumps({"stage": stage, **figures}), flush=True)


def records(project: Path, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / path / "manifest.json").read_text(encoding="utf-8"))["records"]
    return found


def matmul_peak() -> tuple[float, str, str]:
    """The best rate of a 2048³ product on the default device in its default precision, FLOP/s; dtype and device."""
    import torch

    from gptcli.runtime.device import default_dtype, resolve_device

    device = resolve_device("auto")
    dtype = default_dtype(device)
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best, str(dtype).removeprefix("torch."), device.type


def bench_data(project: Path) -> None:
    for stage in ("corpus", "tokenize"):
        report, seconds = gptcli(project, stage)
        megabytes = sum(split["bytes"] for split in report["splits"].values()) / 1e6
        line(stage, megabytes_per_second=round(megabytes / seconds, 2), megabytes=round(megabytes, 1), seconds=seconds)


def bench_pretrain(project: Path) -> None:
    from gptcli.models.load import read_config
    from gptcli.training.throughput import flops_per_token

    peak_before, dtype, device = matmul_peak()
    report, seconds = gptcli(project, "pretrain", "--steps", str(STEPS), *SETTINGS)
    peak = max(peak_before, matmul_peak()[0])
    rate = records(project, report["path"])["tokens_per_second"]
    config = read_config(project / report["path"] / "checkpoints" / f"step-{STEPS:08d}")
    flops = rate * flops_per_token(config, report["parameters"], config.max_position_embeddings)
    line(
        "pretrain",
        tokens_per_second=rate,
        share_of_matmul_peak=round(flops / peak, 4),
        matmul_peak_tflops=round(peak / 1e12, 3),
        dtype=dtype,
        device=device,
        parameters=report["parameters"],
        seconds=seconds,
    )


def bench_rest(project: Path) -> None:
    report, seconds = gptcli(project, "eval", "base")
    line("eval", tokens_per_second=round(report["tokens"] / seconds, 1), seconds=seconds)
    report, seconds = gptcli(project, "finetune-lora", "--steps", "20", *SETTINGS, "--set", "val_first=false")
    line("finetune-lora", tokens_per_second=records(project, report["path"])["tokens_per_second"], seconds=seconds)
    _, seconds = gptcli(project, "export", "chat", "--to", "hf")
    line("export", seconds=seconds)


def bench_help() -> None:
    for words in (["--help"], ["pretrain", "--help"]):
        times = []
        for _ in range(HELP_RUNS):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "gptcli", *words], stdout=subprocess.DEVNULL, check=True)
            times.append(1000 * (time.perf_counter() - started))
        line(" ".join(words), milliseconds=round(statistics.median(times), 1), fastest=round(min(times), 1))


def main() -> None:
    project = Path(sys.argv[1] if len(sys.argv) > 1 else ".bench/stages").resolve()
    shutil.rmtree(project, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "gptcli", "init", str(project)], stdout=subprocess.DEVNULL, check=True)
    bench_help()
    bench_data(project)
    bench_pretrain(project)
    bench_rest(project)


if __name__ == "__main__":
    main()
