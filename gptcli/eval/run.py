"""Measure one model: open it, score text and chats, write report.json."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import sha256_file, write_json
from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError, SpecError
from gptcli.eval.baselines import baselines
from gptcli.eval.data import held_out_chats, split_texts, text_documents, text_stream
from gptcli.eval.spec import KIND, REPORT, EvalSpec, held_out_share
from gptcli.inference.adapter_base import adapter_base
from gptcli.inference.open import open_model
from gptcli.job import Job
from gptcli.models.family import CausalLM
from gptcli.runtime.device import default_dtype, peak_device_bytes, resolve_device
from gptcli.runtime.memory import keep_freed_memory
from gptcli.scoring.chats import score_chats
from gptcli.scoring.language_modelling import TokenScore, bits_per_byte, score_stream
from gptcli.tokenizer import Tokenizer, engine_file
from gptcli.training.setup import TOKENS_AT_ONCE


@dataclass
class Measurement:
    """A model on its device, what is asked, and the figures so far: `stats` reproducible, `records` not."""

    spec: EvalSpec
    job: Job
    model: CausalLM
    tokenizer: Tokenizer
    device: torch.device
    dtype: torch.dtype
    seq_len: int
    stats: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Windows at once."""
        return self.spec.batch_size or max(TOKENS_AT_ONCE[self.device.type] // self.seq_len, 1)


def run(spec: EvalSpec, job: Job) -> Manifest:
    """Write evals/NAME. Raises ArtifactError when model and tokens do not belong together, ResourceError when there
    is no such device, SpecError when a text holds nothing to score."""
    device = resolve_device(job.device)
    if spec.tokens and not spec.text:
        _require_own_tokenizer(spec, job)
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    measurement = _open(spec, job, device)
    if spec.tokens or spec.text:
        _score_text(measurement)
    if spec.chats:
        _score_chats(measurement)
    write_json(build.directory / REPORT, {"model": spec.model, **measurement.stats})
    memory = peak_device_bytes(device)
    return build.commit(
        measurement.stats,
        {
            **job.records(),
            **measurement.records,
            "device": device.type,
            "dtype": str(measurement.dtype).removeprefix("torch."),
            **({"peak_device_bytes": memory[0]} if memory else {}),
        },
    )


def _open(spec: EvalSpec, job: Job, device: torch.device) -> Measurement:
    if device.type == "cpu":
        keep_freed_memory()
    # fp32 weights under autocast, as in training: the figures are then those of its validation.
    model, tokenizer, _ = open_model(job.project, spec.model, device, torch.float32)
    dtype = default_dtype(device) if spec.dtype == "auto" else getattr(torch, spec.dtype)
    longest = model.config.max_position_embeddings
    if spec.seq_len > longest:
        raise SpecError(
            f"seq_len = {spec.seq_len} is longer than the context of {spec.model}, {longest} tokens",
            f"use --set seq_len={longest} or less, or leave it out",
        )
    return Measurement(spec, job, model, tokenizer, device, dtype, spec.seq_len or longest)


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


def _score_text(measurement: Measurement) -> None:
    spec, job = measurement.spec, measurement.job
    tokens = job.project.place("tokens", spec.tokens)
    if spec.text:
        stream = text_stream(spec, job, measurement.tokenizer)
    else:
        stream = TokenStream.open(tokens, spec.split, spec.limit)
    started = time.monotonic()
    with job.progress.bar(f"eval {spec.model}", max(len(stream) - 1, 0), "tokens") as bar:
        score = score_stream(
            measurement.model,
            stream,
            seq_len=measurement.seq_len,
            batch_size=measurement.batch_size,
            bos_id=measurement.tokenizer.bos_id,
            device=measurement.device,
            dtype=measurement.dtype,
            check=job.stop.check,
            advance=bar.advance,
        )
    if not score.tokens:
        scored = ", ".join(spec.text) or f"the {spec.split} split of tokens/{spec.tokens}"
        raise SpecError(
            f"there is no token to predict in {scored}: it is empty", "score a split or a text with content"
        )
    _require_finite(spec, score)
    measurement.records["tokens_per_second"] = round(score.tokens / max(time.monotonic() - started, 1e-9), 1)
    measurement.stats.update(_text_figures(score, stream, measurement.seq_len))
    if spec.baselines:
        measurement.stats.update(_baselines(measurement, tokens, stream))


def _require_finite(spec: EvalSpec, score: TokenScore) -> None:
    if score.tokens and not math.isfinite(score.perplexity):
        raise ArtifactError(
            f"the loss of {spec.model} is {score.loss}: its weights are no trained model's",
            f"gptcli checkpoint verify {spec.model} names the tensors that are not finite",
        )


def _text_figures(score: TokenScore, stream: TokenStream, seq_len: int) -> dict[str, Any]:
    return {
        "loss": score.loss,
        "perplexity": score.perplexity,
        "bits_per_byte": bits_per_byte(score, stream.text_bytes),
        "accuracy": score.accuracy,
        "top5_accuracy": score.top5_accuracy,
        "tokens": score.tokens,
        "documents": stream.documents,
        "text_bytes": stream.text_bytes,
        "seq_len": seq_len,
    }


def _baselines(measurement: Measurement, tokens: Path, stream: TokenStream) -> dict[str, float]:
    spec, job = measurement.spec, measurement.job
    texts = text_documents(spec, job) if spec.text else split_texts(job.project, tokens, spec.split, spec.limit)
    with job.progress.bar("gzip -9, xz -9e", stream.documents, "documents") as bar:
        figures, text_bytes = baselines(texts, check=job.stop.check, advance=bar.advance)
    if text_bytes != stream.text_bytes:
        raise ArtifactError(
            f"the documents hold {text_bytes} bytes of text where {job.project.relative(tokens)} says "
            f"{stream.text_bytes}",
            "gptcli checkpoint verify all names what is damaged",
        )
    return figures


def _score_chats(measurement: Measurement) -> None:
    spec, job = measurement.spec, measurement.job
    chats, left_out = held_out_chats(spec, job, measurement.tokenizer, measurement.seq_len)
    with job.progress.bar(f"chats {spec.model}", len(chats), "chats") as bar:
        score = score_chats(
            measurement.model,
            chats,
            batch_tokens=measurement.batch_size * measurement.seq_len,
            device=measurement.device,
            dtype=measurement.dtype,
            check=job.stop.check,
            advance=bar.advance,
        )
    _require_finite(spec, score)
    measurement.stats.update(
        {
            "chat_loss": score.loss,
            "chat_perplexity": score.perplexity,
            "chat_accuracy": score.accuracy,
            "chat_top5_accuracy": score.top5_accuracy,
            "chat_tokens": score.tokens,
            "chats": len(chats),
            "chats_val_share": held_out_share(spec, job.project),
            "chats_left_out": left_out,
        }
    )
