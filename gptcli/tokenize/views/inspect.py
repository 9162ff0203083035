"""`gptcli tokenize --stats`: what a tokenizer makes of a corpus, by source and language, beside other tokenizers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.project import Project
from gptcli.console import Report, human_bytes, human_count, human_seconds, print_columns, print_rows
from gptcli.progress import Progress
from gptcli.tokenize.views.artifact import TOKENIZER, Behind, corpus_behind, finished, splits_of
from gptcli.tokenize.views.compare import Named, open_other
from gptcli.tokenize.views.measures import by_group, count_usage, figures, measure, vocabulary
from gptcli.tokenize.views.sample import Sample, take_sample
from gptcli.tokenize.views.visible import print_ascii, printable
from gptcli.tokenizer import Tokenizer

_SHOWN_SOURCES = 20  # for a person; --json has all
_TIMED = ("counting", "training")  # parts of a run, in its records as NAME_seconds
_SHOWN_PIECES = 6
_SHOWN_CHARS = 40  # of a piece
_MEASURES = (
    ("bytes a token", "bytes_per_token", "{:.3f}"),
    ("characters a token", "chars_per_token", "{:.3f}"),
    ("tokens a word", "tokens_per_word", "{:.3f}"),
    ("single bytes", "byte_share", "{:.3%}"),
    ("unknown", "unknown_share", "{:.3%}"),
    ("decode to themselves", "lossless_share", "{:.2%}"),
)


def report(project: Project, name: str | None, others: Sequence[str], progress: Progress) -> Report:
    """The report on tokens/NAME: its vocabulary's use over the whole train split, and its figures on a sample of the
    val split (of train where there is no val) beside those of `others`, named as the key `tokenizer` names one.

    Raises ArtifactError where tokens/NAME or one of `others` isn't there or can't be read.
    """
    place, manifest = finished(project, name)
    own = Named(project.relative(place), project.relative(place / TOKENIZER), Tokenizer.load(place / TOKENIZER))
    named = [own, *(open_other(project, typed) for typed in others)]
    behind = corpus_behind(project, manifest)
    sample = _sample(behind, manifest)
    told = {
        "trained": _training(manifest),
        "splits": manifest.stats["splits"],
        **_used(splits_of(place), manifest, own.tokenizer, progress),
        "sample": _told(sample),
        "tokenizers": _measured(named, sample, progress),
        "not_told": _not_told(behind, sample),
    }
    return Report(f"{own.name}: {own.tokenizer.vocab_size:,} ids", project.relative(place), told)


def print_shown(report: Report, as_json: bool) -> None:
    """Print what `report` found."""
    if as_json:
        print_ascii(report)
        return
    print(report.title)
    print_rows([*_rows_of_training(report.figures["trained"]), *_rows_of_use(report.figures)])
    if report.figures["sample"]:
        print()
        print(_of_sample(report.figures["sample"]))
        _print_table(report.figures["tokenizers"])
    print_rows([("not told", reason) for reason in report.figures["not_told"]])
    print(f"  → {report.path}")
    sys.stdout.flush()


def _sample(behind: Behind, manifest: Manifest) -> Sample | None:
    """The documents to measure on, or None where their texts can't be had."""
    if behind.path is None or behind.manifest is None:
        return None
    for split in ("val", "train", "test"):
        counted = manifest.stats["splits"].get(split)
        if counted and counted["documents"]:
            return take_sample(behind.path, behind.manifest, split, counted["documents"], counted["bytes"])
    return None


def _told(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {
        "split": sample.split,
        "documents": len(sample.texts),
        "bytes": sample.bytes,
        "every": sample.every,
        "cut": sample.cut,
    }


def _used(splits: dict[str, Any], manifest: Manifest, tokenizer: Tokenizer, progress: Progress) -> dict[str, Any]:
    """The vocabulary's use and the documents' lengths, over all of train."""
    shards = splits.get("train", [])
    total = manifest.stats["splits"].get("train", {}).get("tokens", 0)
    with progress.bar("counting", total, "tokens") as bar:
        usage = count_usage(shards, tokenizer.vocab_size, bar.advance)
    return {
        "vocabulary": {"size": tokenizer.vocab_size, **vocabulary(tokenizer, usage)},
        "tokens_per_document": usage.tokens_per_document(),
        "foreign_ids": usage.foreign,
    }


def _measured(named: Sequence[Named], sample: Sample | None, progress: Progress) -> list[dict[str, Any]]:
    found = []
    for one in named:
        told: dict[str, Any] = {"tokenizer": one.name, "path": one.path, "vocab_size": one.tokenizer.vocab_size}
        if sample is not None:
            with progress.bar(f"measuring {printable(one.name)}", sample.bytes, "bytes") as bar:
                rows = measure(one.tokenizer, sample.texts, bar.advance)
            told |= {**figures(rows), **by_group(rows, sample)}
        found.append(told)
    return found


def _training(manifest: Manifest) -> dict[str, Any]:
    """What the tokenizer was trained on, as the manifest has it; `is_trained` False for one that was taken."""
    corpus = next((entry.path for entry in manifest.inputs if entry.role == "corpus"), None)
    records = manifest.records.get("training", manifest.records)
    told = {name: records.get(f"{name}_seconds") for name in _TIMED} if isinstance(records, dict) else {}
    return {
        "is_trained": bool(manifest.stats["trained"]),
        "corpus": corpus,
        "spec": manifest.spec,
        "seconds": manifest.records.get("seconds"),
        "created": manifest.records.get("created"),
        "training": manifest.stats.get("training"),
        **{f"{name}_seconds": value for name, value in told.items() if value is not None},
    }


def _not_told(behind: Behind, sample: Sample | None) -> list[str]:
    if behind.missing:
        return [f"{behind.missing}: no text to measure on, by source or by language"]
    if sample is None:
        return ["the corpus has no documents"]
    return [] if any(sample.languages) else ["the corpus's metadata names no languages"]


def _rows_of_training(told: dict[str, Any]) -> list[tuple[str, str]]:
    how = "trained on the train split" if told["is_trained"] else f"taken from {told['spec'].get('tokenizer')}"
    part = ", a sample," if told["is_trained"] and told["spec"].get("sample_bytes") else ""
    rows = [("tokenizer", printable(f"{how}{part} of {told['corpus']}" if told["is_trained"] else how))]
    if isinstance(learnt := told["training"], dict):
        rows.append(("trained on", _learnt(learnt)))
    if told["seconds"] is not None:
        parts = [f"{name} {human_seconds(told[key])}" for name in _TIMED if (key := f"{name}_seconds") in told]
        rows.append(("time", ", ".join([f"{human_seconds(told['seconds'])} in all", *parts])))
    return rows


def _learnt(learnt: dict[str, Any]) -> str:
    """Figures of a training in words, those that there are."""
    parts = [
        f"{learnt[key]:,} {key.replace('_', ' ')}"
        for key in ("documents", "words", "distinct_words", "left_out_distinct_words", "distinct_characters")
        if learnt.get(key)
    ]
    size = learnt.get("document_bytes")
    return ", ".join([*parts, *([human_bytes(size)] if size else [])])


def _rows_of_use(told: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (split, f"{one['documents']:,} documents, {human_bytes(one['bytes'])}, {human_count(one['tokens'])} tokens")
        for split, one in told["splits"].items()
    ]
    lengths = told["tokens_per_document"]
    if lengths:
        rows.append(("p5 / p50 / p95", " / ".join(f"{count:,}" for count in lengths.values()) + " tokens a document"))
    used = told["vocabulary"]
    share = f" ({100 * used['unused_share']:.1f} %)" if used["unused_share"] else ""
    examples = ", ".join(_cut(one["piece"]) for one in used["unused_examples"][:_SHOWN_PIECES])
    rows.append(
        (
            "unused",
            f"{used['unused_pieces']:,} of {used['pieces']:,} pieces{share}" + (f": {examples}" if examples else ""),
        )
    )
    if used["byte_ids"]:
        rows.append(("", f"{used['unused_byte_ids']:,} of {used['byte_ids']:,} bytes"))
    for number, one in enumerate(used["longest"][:_SHOWN_PIECES]):
        told_of = f"{one['bytes']} bytes, {one['count']:,} times: {_cut(one['piece'])}"
        rows.append(("longest" if number == 0 else "", told_of))
    if told["foreign_ids"]:
        rows.append(("DAMAGED", f"{told['foreign_ids']:,} ids outside the vocabulary: gptcli tokenize --verify"))
    return rows


def _cut(piece: str) -> str:
    return printable(piece if len(piece) <= _SHOWN_CHARS else f"{piece[:_SHOWN_CHARS]}… ({len(piece)} characters)")


def _of_sample(sample: dict[str, Any]) -> str:
    which = f"every {sample['every']}th document" if sample["every"] > 1 else "all documents"
    cut = f", {sample['cut']:,} of them cut at a megabyte" if sample["cut"] else ""
    return (
        f"measured on {which} of {sample['split']}: {sample['documents']:,}, {human_bytes(sample['bytes'])}{cut}; "
        "words are what white space parts"
    )


def _print_table(measured: Sequence[dict[str, Any]]) -> None:
    """A row a figure, a column a tokenizer."""
    rows = [("vocabulary", *(f"{one['vocab_size']:,}" for one in measured))]
    rows += [(label, *(_cell(one[key], form) for one in measured)) for label, key, form in _MEASURES]
    for key, what in (("by_source", "source"), ("by_language", "language")):
        groups = [found[what] for found in measured[0][key]]
        for number, group in enumerate(groups[:_SHOWN_SOURCES]):
            cells = (_cell(one[key][number]["bytes_per_token"], "{:.3f}") for one in measured)
            rows.append((f"  {printable(group)}", *cells))
        if len(groups) > _SHOWN_SOURCES:
            rows.append((f"  and {len(groups) - _SHOWN_SOURCES:,} more in --json", *("" for _ in measured)))
    print_columns(("", *(printable(one["tokenizer"]) for one in measured)), rows)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
