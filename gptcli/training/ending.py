"""The end of a run: its manifest covers the metrics and the last checkpoint's files."""

from __future__ import annotations

from typing import Any

from gptcli.artifacts.build import SPEC
from gptcli.artifacts.durable import fsync_file, sha256_file
from gptcli.artifacts.locations import step_directories
from gptcli.artifacts.manifest import FileEntry, Manifest, make_manifest, read_manifest, write_manifest
from gptcli.artifacts.rows import METRICS, read_rows
from gptcli.job import Job
from gptcli.training.budget import BUDGET
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.metrics import TIMINGS, Metrics


def end_run(
    job: Job, checkpoints: Checkpoints, metrics: Metrics, step: int, facts: dict[str, Any], setup: dict[str, Any]
) -> Manifest:
    """Write runs/NAME/manifest.json; `facts` go into its stats, `setup` and the rate into its records."""
    last = step_directories(job.place)[step]
    fsync_file(job.place / METRICS)
    files = [
        FileEntry(name, (job.place / name).stat().st_size, sha256_file(job.place / name))
        for name in (BUDGET, METRICS, SPEC)
        if (job.place / name).is_file()
    ]
    files += [
        FileEntry(f"{last.relative_to(job.place).as_posix()}/{entry.path}", entry.bytes, entry.sha256)
        for entry in read_manifest(last, "checkpoint").files
    ]
    validation = metrics.validation()
    before = validation.pop(0, None)
    best = min(validation.values(), key=lambda row: (row["val_loss"], row["step"]), default={"step": step})
    stats = {
        **facts,
        "step": step,
        "train_loss": [row["train_loss"] for row in metrics.rows if "train_loss" in row][-1],
        **{key: value for key, value in validation.get(step, {}).items() if key != "step"},
        **({"val_loss_before": before["val_loss"]} if before else {}),
        "best_step": best["step"],
    }
    records = {**job.records(), "setup": setup, "tokens_per_second": median_rate(job)}
    manifest = make_manifest("run", checkpoints.spec, job.inputs, tuple(files), stats, records)
    write_manifest(job.place, manifest)
    return manifest


def median_rate(job: Job) -> float | None:
    """Tokens per second, the median over the run's windows; None where none was measured."""
    rates = [row["tokens_per_second"] for row in read_rows(job.place / TIMINGS) if "tokens_per_second" in row]
    return sorted(rates)[len(rates) // 2] if rates else None
