"""`gptcli pretrain --explain-step N`: what one step of a run was made of, document by document, and how it went.

It only reads, and needs no torch: samples are a function of the run's spec and the tokens it began with.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptcli.artifacts.build import SPEC as STARTED
from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.project import Project
from gptcli.artifacts.rows import METRICS, read_rows
from gptcli.artifacts.tokens import Bounds, TokenStream, document_bounds
from gptcli.console import Report, print_columns, print_rows
from gptcli.errors import ArtifactError, GptcliError, SpecError
from gptcli.pretrain.documents import placed, sources
from gptcli.pretrain.spec import DEFAULT_NAME, FOLDER, PretrainSpec, tokens_manifest
from gptcli.spec import resolve
from gptcli.tokenizer import Tokenizer
from gptcli.training.open_rows import open_rows
from gptcli.training.order import sample_indices
from gptcli.training.rows import TrainingRows, document_parts, valid_targets

SAMPLE = "sample"  # in a step's row of metrics.jsonl: its first sample, where ranges of the data were skipped
_SPLIT = "train"
_WORDS = 24  # tokens of a document's part whose text is shown
_SHOWN_CHARS = 48
_SHOWN_PARTS = 400  # for a person; --json has all
_LAST_STEP = 1 << 40

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Run:
    """A run as far as it has come: `steps` are the rows of metrics.jsonl that tell of steps."""

    place: Path
    spec: PretrainSpec
    tokens: Path
    manifest: Manifest
    steps: Rows


def explain_step(project: Project, name: str | None, step: int) -> Report:
    """The samples of step `step` of runs/NAME, counted from 1 as the run's log counts them.

    Of each: its number over the whole training, its row of the epoch, the documents in it with the tokens of them that
    it holds, targets that carry loss, epoch (from 1). Raises SpecError for a number that is no step, ArtifactError
    where there is no such run or its tokens aren't what they were.
    """
    if not 0 < step <= _LAST_STEP:
        raise SpecError(f"--explain-step {step}: steps are counted from 1", "for example --explain-step 1")
    run = _open(project, name or DEFAULT_NAME)
    tokenizer = Tokenizer.load(run.tokens / "tokenizer")
    spec = run.spec
    rows = open_rows(
        run.tokens,
        tokenizer,
        packing=spec.packing,
        document_mask=spec.document_mask,
        seq_len=spec.seq_len,
        seed=spec.seed,
    )
    first, is_logged = _first_sample(run, step)
    samples = _samples(rows, document_bounds(run.tokens, _SPLIT), first, spec)
    not_told = _name_documents(project, run, tokenizer, samples)
    told = [row for row in run.steps if row["step"] == step]
    figures = {
        "step": step,
        "outcome": _outcome(run.steps, told, step),
        "metrics": told,
        "first_sample": first,
        "first_sample_from": METRICS if is_logged else "the step's number",
        "sequences": spec.sequences,
        "seq_len": spec.seq_len,
        "packing": spec.packing,
        "document_mask": spec.document_mask,
        "tokens": sum(sample["tokens"] for sample in samples),
        "valid": sum(sample["valid"] for sample in samples),
        "samples_an_epoch": rows.count,
        "tokens_artifact": project.relative(run.tokens),
        "samples": samples,
        "not_told": not_told,
    }
    return Report(f"{project.relative(run.place)} step {step:,}", project.relative(run.place), figures)


def print_shown(report: Report, as_json: bool) -> None:
    """Print what `explain_step` found."""
    told = report.figures
    if as_json:  # in ASCII: texts are the documents' own, and even a program's output may end on a terminal
        print(json.dumps({"title": report.title, "path": report.path, **told}), flush=True)
        return
    print(report.title)
    samples = told["samples"]
    epochs = sorted({sample["epoch"] for sample in samples})
    last = told["first_sample"] + told["sequences"] - 1
    rows = [
        ("it was", _visible(told["outcome"])),
        *[("", ", ".join(f"{key} {_visible(str(value))}" for key, value in row.items())) for row in told["metrics"]],
        ("samples", f"{told['first_sample']:,} to {last:,}, {told['samples_an_epoch']:,} an epoch"),
        ("epoch", " and ".join(f"{epoch:,}" for epoch in (epochs[0], epochs[-1])[: len(epochs)])),
        ("rows", f"{told['packing']}, {told['seq_len']:,} tokens{', masked' if told['document_mask'] else ''}"),
        ("tokens", f"{told['tokens']:,}, of which {told['valid']:,} targets carry loss"),
        *[("not told", _visible(reason)) for reason in told["not_told"]],
    ]
    print_rows(rows)
    print()
    _print_parts(samples)
    print(f"  → {told['tokens_artifact']}")
    sys.stdout.flush()


def require_alone(given: list[str]) -> None:
    """SpecError where what only trains (`given`, names of options) stands beside --explain-step."""
    if given:
        names = " and ".join(given)
        raise SpecError(
            f"--explain-step shows what a run did, and trains nothing: {names} would do nothing", f"leave out {names}"
        )


def _open(project: Project, name: str) -> _Run:
    place = project.place(FOLDER, name)
    path = place / STARTED
    if not path.is_file():
        raise ArtifactError(f"there is no run {project.relative(place)}", f"gptcli pretrain --name {name}")
    try:
        started = json.loads(path.read_text(encoding="utf-8"))
        content, inputs = started["spec"], started["inputs"]
        recorded = next((entry["content_sha256"] for entry in inputs if entry["role"] == "tokens"), None)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", "gptcli status") from error
    if recorded is None:
        raise ArtifactError(f"{project.relative(place)} was not trained on tokens", "name a run of gptcli pretrain")
    try:
        spec = resolve(PretrainSpec, [("spec.json", content)])[0]
    except GptcliError as error:
        raise ArtifactError(
            f"the spec of {project.relative(place)} is not one of this gptcli: {error.message}", "gptcli status"
        ) from error
    manifest = tokens_manifest(spec.tokens, project)
    if manifest.content_sha256 != recorded:
        raise ArtifactError(
            f"tokens/{spec.tokens} is no longer what {project.relative(place)} was trained on",
            "its steps can be explained only with those tokens in their place",
        )
    steps = [row for row in read_rows(place / METRICS) if isinstance(row.get("step"), int) and "val_loss" not in row]
    return _Run(place, spec, project.place("tokens", spec.tokens), manifest, steps)


def _first_sample(run: _Run, step: int) -> tuple[int, bool]:
    """The first sample of a step, and whether metrics.jsonl told it: from its row, or the last before it that tells.

    Where no row does, no data was skipped.
    """
    known = [row for row in run.steps if row["step"] <= step and type(row.get(SAMPLE)) is int]
    if not known:
        return (step - 1) * run.spec.sequences, False
    last = max(known, key=lambda row: row["step"])
    return last[SAMPLE] + (step - last["step"]) * run.spec.sequences, True


def _outcome(steps: Rows, told: Rows, step: int) -> str:
    if not told:
        reached = max((row["step"] for row in steps), default=0)
        return f"not taken yet: the log ends with step {reached:,}" if step > reached else "not in the log"
    skipped = [row["skipped"] for row in told if row.get("skipped")]
    if skipped:
        return "skipped" if skipped[-1] is True else f"skipped: {skipped[-1]}"
    return "taken"


def _samples(rows: TrainingRows, bounds: Bounds, first: int, spec: PretrainSpec) -> Rows:
    """The step's samples; `parts` are numbers and places in the split's stream yet, without names."""
    numbers = sample_indices(spec.seed, first, spec.sequences, rows.count)
    found = rows.rows(numbers)
    valid = valid_targets(found)
    samples = []
    for place, number in enumerate(numbers.tolist()):
        parts = document_parts(bounds, rows.spans(number))
        samples.append(
            {
                "sample": first + place,
                "row": number % rows.count,
                "epoch": (first + place) // rows.count + 1,
                "tokens": int(found.tokens[place]),
                "valid": int(valid[place]),
                "documents": [
                    {
                        "number": document,
                        "position": begin,
                        "begin": begin - int(bounds[document]),
                        "end": end - int(bounds[document]),
                        "document_tokens": int(bounds[document + 1] - bounds[document]),
                    }
                    for document, begin, end in parts
                ],
            }
        )
    return samples


def _name_documents(project: Project, run: _Run, tokenizer: Tokenizer, samples: Rows) -> list[str]:
    """Add to every part its document's id, shard and row, source and first words; why some are not told."""
    parts = [part for sample in samples for part in sample["documents"]]
    found = placed(run.tokens, _SPLIT, (part["number"] for part in parts))
    where, not_told = sources(project, run.manifest, found)
    stream = TokenStream.open(run.tokens, _SPLIT)
    for part in parts:
        document = found[part["number"]]
        words = stream.read(part["position"], part["position"] + min(_WORDS, part["end"] - part["begin"]))
        part |= {
            "document": document.document,
            "shard": document.shard,
            "row": document.row,
            "source": where.get(part["number"]),
            "text": tokenizer.decode(np.asarray(words).tolist()),
        }
    return not_told


def _print_parts(samples: Rows) -> None:
    """A row a document's part, the sample's own figures in the first of them."""
    table: list[tuple[str, ...]] = []
    for sample in samples:
        own = (f"{sample['sample']:,}", f"{sample['row']:,}", f"{sample['valid']:,}")
        for part in sample["documents"]:
            tokens = f"{part['begin']:,}–{part['end'] - 1:,} of {part['document_tokens']:,}"
            table.append((*own, part["document"][:12], tokens, _from(part["source"]), _words(part["text"])))
            own = ("", "", "")
    print_columns(("sample", "row", "targets", "document", "tokens", "from", "text"), table[:_SHOWN_PARTS])
    if len(table) > _SHOWN_PARTS:
        print(f"  and {len(table) - _SHOWN_PARTS:,} more in --json")


def _from(source: dict[str, Any] | None) -> str:
    if source is None:
        return "?"
    member = "" if source["member"] is None else f"!{source['member']}"
    return _visible(f"{source['path']}{member}:{source['source_offset']}")


def _words(text: str) -> str:
    shown = _visible(" ".join(text.split()))
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[: _SHOWN_CHARS - 1]}…"


def _visible(text: str) -> str:
    """Without characters that a terminal obeys: names and texts are the sources' own."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
