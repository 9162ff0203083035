"""Measure one model: open it, ask what the spec wants to know, write the evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import torch

from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import sha256_file, write_bytes, write_json, write_text
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.ngrams import NgramIndex
from gptcli.errors import ArtifactError
from gptcli.eval.chats import measure_chats
from gptcli.eval.kept import file_of
from gptcli.eval.measurement import Measurement
from gptcli.eval.report import PAGE, render_report
from gptcli.eval.spec import KIND, EvalSpec
from gptcli.eval.task_files import open_tasks
from gptcli.eval.tasks import Asked, measure_task
from gptcli.eval.text import measure_text
from gptcli.inference.adapter_base import adapter_base
from gptcli.job import Job
from gptcli.runtime.device import peak_device_bytes, resolve_device
from gptcli.scoring.engine import Engine
from gptcli.scoring.evaluations import DOCUMENTS, ITEMS, REPORT
from gptcli.scoring.provenance import Behind, corpora_of_model, train_ngrams
from gptcli.tokenizer import engine_file


def run(spec: EvalSpec, job: Job) -> Manifest:
    """Write evals/NAME. Raises ArtifactError when model and tokens do not belong together, ResourceError when there
    is no such device, SpecError when a text holds nothing to score or a task no item."""
    device = resolve_device(job.device)
    if spec.tokens and not spec.text:
        _require_own_tokenizer(spec, job)
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    measurement = Measurement.open(spec, job, device)
    if spec.tokens or spec.text:
        measure_text(measurement)
    if spec.chats:
        measure_chats(measurement)
    if spec.tasks:
        _measure_tasks(measurement)
    if spec.harness:
        from gptcli.eval.harness import measure_harness

        measure_harness(measurement, _engine(measurement))
    _write(measurement, build.directory)
    memory = peak_device_bytes(device)
    return build.commit(
        _as_json({**measurement.figures, "intervals": measurement.intervals, "tasks": measurement.first}),
        {
            **job.records(),
            **measurement.records,
            "device": device.type,
            "dtype": str(measurement.dtype).removeprefix("torch."),
            **({"peak_device_bytes": memory[0]} if memory else {}),
        },
    )


def _require_own_tokenizer(spec: EvalSpec, job: Job) -> None:
    """ArtifactError unless the tokens were made by the very tokenizer that the model carries."""
    model = resolve_model(job.project, spec.model)
    home = model.directory
    if model.kind == "adapter" and engine_file(home) is None:
        home = adapter_base(job.project, home)
    tokens = job.project.place("tokens", spec.tokens) / "tokenizer"
    files = [engine_file(folder) for folder in (home, tokens)]
    hashes = ["none" if file is None else sha256_file(file) for file in files]
    if hashes[0] != hashes[1]:
        named = [job.project.relative(folder) for folder in (home, tokens)]
        raise ArtifactError(
            f"the model {spec.model} has another tokenizer ({named[0]}: {hashes[0][:12]}) than the tokens "
            f"{spec.tokens} ({named[1]}: {hashes[1][:12]})",
            f"score it on text (--text FILE), or make tokens of its own: gptcli tokenize --name OTHER "
            f"--set tokenizer={named[0] if '/' in named[0] else './' + named[0]}",
        )


def _measure_tasks(measurement: Measurement) -> None:
    spec, job = measurement.spec, measurement.job
    engine = _engine(measurement)
    how = {"dtype": str(engine.dtype).removeprefix("torch."), "device": measurement.device.type}
    if engine.dtype != torch.float32:  # where what stands in a batch moves log-likelihoods by tenths of a nat
        how["batch_size"] = str(spec.batch_size)
    models = [entry.content_sha256 for entry in job.inputs.entries if entry.role in ("model", "base")]
    asked = Asked(
        engine,
        measurement.tokenizer,
        measurement.chat_tuned,
        {"models": models, "chat": measurement.chat_tuned, **how},
    )
    train = _train_ngrams(measurement)
    for named in open_tasks(spec.tasks, job.project):
        found = measure_task(named, asked, job, train)
        name = named.task.name
        measurement.judged[name] = found.judged
        measurement.figures |= {f"{name}.{figure}": value for figure, value in found.figures.items()}
        measurement.figures[f"{name}.items"] = len(found.judged)
        measurement.first[name] = list(found.figures)
        measurement.intervals |= {f"{name}.{figure}": ends for figure, ends in found.intervals.items()}
        measurement.told.setdefault("tasks", {})[name] = found.told


def _engine(measurement: Measurement) -> Engine:
    """What answers items: on a CPU in fp32 unless told otherwise, for it costs little there and no batch shows."""
    tokenizer, on_cpu = measurement.tokenizer, measurement.device.type == "cpu"
    return Engine(
        measurement.model,
        tokenizer,
        device=measurement.device,
        dtype=torch.float32 if on_cpu and measurement.spec.dtype == "auto" else measurement.dtype,
        batch_size=measurement.spec.batch_size,
        stop_ids={*measurement.model.config.eos_ids, tokenizer.eos_id, tokenizer.eot_id},
        check=measurement.job.stop.check,
    )


def _train_ngrams(measurement: Measurement) -> list[NgramIndex]:
    """The n-grams to look items up in; says what is missing, where a corpus was asked for or is behind the model."""
    spec, job = measurement.spec, measurement.job
    if not spec.contamination:
        return []
    if spec.contamination == "auto":
        behind = corpora_of_model(job.project, spec.model)
    else:
        behind = Behind((job.project.place("corpus", spec.contamination),))
    indexes, missing = train_ngrams(behind)
    measurement.told["contamination"] = {
        "corpora": [job.project.relative(corpus) for corpus in behind.corpora],
        "missing": list(missing),
    }
    if missing:
        job.progress.say(f"items are not held against all that the model learned from: {'; '.join(missing)}")
    return indexes


def _write(measurement: Measurement, directory: Path) -> None:
    """report.json, report.html, and what each item and each document gave."""
    report = _as_json(
        {
            "model": measurement.spec.model,
            "figures": measurement.figures,
            "intervals": measurement.intervals,
            "tasks": {},
            **measurement.told,
            "spec": measurement.spec.content(),
        }
    )
    write_json(directory / REPORT, report)
    write_text(directory / PAGE, render_report(report, measurement.judged))
    if measurement.judged:
        rows = [row for name in measurement.judged for row in measurement.judged[name]]
        write_bytes(directory / ITEMS, file_of(rows))
    if measurement.documents:
        write_bytes(directory / DOCUMENTS, _table(measurement.documents))


def _as_json(value: Any) -> Any:
    """Figures as JSON has them: null is one that is no number."""
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(columns: Mapping[str, Any]) -> bytes:
    """Columns as an Arrow IPC file."""
    table = pa.table({name: pa.array(np.asarray(values)) for name, values in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
