"""One unit: read its files; normalise, filter, hash and sign every document. Runs in a worker, writes to disk."""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcli.corpus.decontamination import Items
from gptcli.corpus.dedup.paragraphs import paragraph_hashes
from gptcli.corpus.dedup.shingles import shingle_hashes
from gptcli.corpus.filters import Filter, Value, View
from gptcli.corpus.plan import Unit, UnitFile
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import Counts, Dropped, Kept, UnitWriter
from gptcli.records.documents import read
from gptcli.records.ngrams import Hashes, word_hashes
from gptcli.records.pieces import EMPTY, TOO_LONG, Notes, Piece
from gptcli.records.sources import require_unchanged

# Reasons a document is left out, beside those of records/ (`empty`, `too_long`, `bad_row:…`) and `filter:NAME:RULE`.
TOO_SHORT = "too_short"
CONTAMINATED = "contaminated"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"
REPEATED = "repeated_paragraphs"
DOWN_SAMPLED = "down_sampled"

DECONTAMINATION = "decontamination"  # the step behind the filters
_SAMPLE_CHARS = 1000  # of a dropped document's text


@dataclass(frozen=True)
class Step:
    """What one filter, or one of the steps around them, did to a document; `--explain` shows them all."""

    name: str
    values: dict[str, Value] = field(default_factory=dict)
    failed: str = ""  # the rule
    changes: dict[str, int] = field(default_factory=dict)
    words: Hashes | None = field(default=None, repr=False, compare=False)  # hashes of the text after it, where known

    @property
    def can_be_judged(self) -> bool:
        """Whether its kept values decide, so that other thresholds may decide otherwise."""
        return bool(self.values) and self.name != DECONTAMINATION


@dataclass
class Done:
    """What a worker tells of a finished unit: enough for the progress bar and for early errors."""

    read: int = 0
    kept: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by step
    columns: dict[str, list[str]] = field(default_factory=dict)
    with_text: list[str] = field(default_factory=list)


def cleaning_content(spec: CorpusSpec) -> dict[str, Any]:
    """All of the spec that decides what a unit holds; rules' thresholds are left out where the scores are kept."""
    content = spec.content()
    names = ["repair", "normalize", "min_chars", "keep_scores", "decontamination", "repeated_paragraphs"]
    told = {name: content[name] for name in names}
    told["filters"] = [_without_thresholds(one) if spec.keep_scores else one.content() for one in spec.steps()]
    if spec.dedup == "near":
        told["near"] = {key: value for key, value in content["near"].items() if key != "threshold"}
    return told


def _without_thresholds(one: Filter) -> dict[str, Any]:
    fields = type(one).model_fields
    judging = {name for name, field in fields.items() if (field.json_schema_extra or {}).get("threshold")}  # type: ignore[union-attr]
    return {name: value for name, value in one.content().items() if name not in judging}


class Cleaner:
    """Cleans the documents of one unit."""

    def __init__(self, unit: Unit, spec: CorpusSpec, directory: Path, items: Items | None) -> None:
        self._unit, self._spec, self._items = unit, spec, items
        self._near = spec.near if spec.dedup == "near" else None
        self._writer = UnitWriter(directory, unit, self._near)
        self._counts, self._notes = Counts(), Notes()
        self.done = Done()

    def clean(self) -> Done:
        """Every file of the unit. SpecError naming a file that can't be read, or is no longer the one hashed."""
        for file in self._unit.files:
            pieces = read(file.path, file.name, self._unit.options, self._notes, self._unit.part)
            for piece in self._timed("reading", pieces):
                self._piece(file, piece)
            require_unchanged(file.path, file.recorded)
        self._counts.faults = [list(fault) for fault in self._notes.faults]
        self._counts.columns = self.done.columns = self._notes.columns
        self._counts.with_text = self.done.with_text = sorted(self._notes.with_text)
        self.done.read = self._counts.read
        self._writer.close(self._counts)
        return self.done

    def _timed(self, step: str, pieces: Iterator[Piece]) -> Iterator[Piece]:
        began = time.perf_counter()
        for piece in pieces:
            self._spent(step, began)
            yield piece
            began = time.perf_counter()
        self._spent(step, began)

    def _spent(self, step: str, began: float) -> None:
        self.done.seconds[step] = self.done.seconds.get(step, 0.0) + time.perf_counter() - began

    def _piece(self, file: UnitFile, piece: Piece) -> None:
        self._counts.read += 1
        self._counts.invalid += piece.invalid_bytes
        reason = piece.reason or judge_length(piece.text, self._spec)
        text = piece.text
        if reason:
            self._drop(file, piece, text, reason, str(len(text)) if text else None)
            return
        text = normalized(text, self._spec)
        steps, text = self._filtered(text, piece)
        later = self._spec.keep_scores  # what can be judged then is not left out now
        failed = next((step for step in steps if step.failed and not (later and step.can_be_judged)), None)
        if failed is None and (reason := judge_length(text, self._spec)):  # a filter may have cut it
            self._drop(file, piece, text, reason, str(len(text)))
            return
        if failed is not None:
            value = failed.values.get(failed.failed)
            self._drop(file, piece, text, reason_of(failed), None if value is None else shown(value))
            return
        if not any(step.failed for step in steps):
            self._note_changes(steps)
        began = time.perf_counter()
        self._keep(file, piece, text, steps)
        self._spent("signing and writing", began)

    def _filtered(self, text: str, piece: Piece) -> tuple[list[Step], str]:
        steps: list[Step] = []
        began, every = time.perf_counter(), self._spec.keep_scores
        for step, changed in filter_steps(text, url_of(piece), self._spec, self._items, every):
            self._spent(step.name, began)
            text = changed
            if isinstance(code := step.values.get("language"), str):
                self._counts.languages[code] = self._counts.languages.get(code, 0) + 1
            steps.append(step)
            began = time.perf_counter()
        return steps, text

    def _note_changes(self, steps: list[Step]) -> None:
        for step in steps:
            for what, count in step.changes.items():
                key = f"{step.name}:{what}"
                self._counts.rewritten[key] = self._counts.rewritten.get(key, 0) + count

    def _keep(self, file: UnitFile, piece: Piece, text: str, steps: list[Step]) -> None:
        data = text.encode()
        scores = [step.values for step in steps if step.name != DECONTAMINATION] if self._spec.keep_scores else None
        self._writer.write(
            Kept(
                hash=text_hash(data),
                text=data,
                chars=len(text),
                path=file.name,
                member=piece.member,
                offset=piece.offset,
                size=piece.size,
                license=self._unit.license,
                meta=piece.meta,
                scores=None if scores is None else json.dumps(scores, ensure_ascii=False),
                shingles=shingle_hashes(text, steps[-1].words if steps else None) if self._near else None,
                paragraphs=paragraph_hashes(text, fewest) if (fewest := self._spec.repeated_paragraphs) else None,
            )
        )
        self.done.kept += 1

    def _drop(self, file: UnitFile, piece: Piece, text: str, reason: str, value: str | None) -> None:
        self._counts.left_out[reason] = self._counts.left_out.get(reason, 0) + 1
        identity = dropped_id(file.name, piece, text)
        sample = text[:_SAMPLE_CHARS] or None
        self._writer.drop(Dropped(identity, file.name, piece.member, piece.offset, piece.size, reason, value, sample))


def clean_unit(unit: Unit, spec: CorpusSpec, directory: Path, items: Path | None = None) -> Done:
    """Clean one unit into `directory`; `items`: the n-grams of evaluation items, as `Items.save` wrote them."""
    return Cleaner(unit, spec, directory, Items.load(items) if items else None).clean()


def filter_steps(
    text: str, url: str, spec: CorpusSpec, items: Items | None, every: bool = False
) -> Iterator[tuple[Step, str]]:
    """What each filter, then decontamination, makes of a normalised text, and the text after it.

    Ends behind the first filter whose rule is not passed, unless `every` rule is to be measured.
    """
    view = View(text, url=url)
    for one in spec.steps():
        changed, changes = one.rewrite(view)
        if changed is not view.text:
            view = View(changed, url=url)
        if not changed.strip():
            yield Step(one.name, failed=EMPTY, changes=changes), changed
            return
        values, failed = measured(one, view, every)
        yield Step(one.name, values, failed, changes), changed
        if failed and not every:
            return
    if items is not None:
        words = word_hashes(view.text)
        treated = items.treat(view.text, words)
        words_now = words if treated.text is view.text else None
        yield Step(DECONTAMINATION, treated.values, treated.failed, treated.changes, words_now), treated.text


def measured(one: Filter, view: View, every: bool) -> tuple[dict[str, Value], str]:
    """A filter's values by rule, and the first rule not passed; the rest is left unmeasured unless `every` is."""
    values: dict[str, Value] = {}
    failed = ""
    for rule, value in one.measures(view):
        values[rule] = value
        if not failed and not one.passes(rule, value):
            failed = rule
            if not every:
                break
    return values, failed


def judged(scores: list[dict[str, Value]], spec: CorpusSpec) -> tuple[str, Value]:
    """The reason by kept scores, one entry a filter ("": kept), and its value, under the spec's thresholds of now."""
    for one, values in zip(spec.steps(), scores, strict=True):
        for rule, value in values.items():
            if not one.passes(rule, value):
                return f"filter:{one.name}:{rule}", value
    return "", 0.0


def reason_of(step: Step) -> str:
    return CONTAMINATED if step.name == DECONTAMINATION else f"filter:{step.name}:{step.failed}"


def judge_length(text: str, spec: CorpusSpec) -> str:
    if not text or text.isspace():
        return EMPTY
    if len(text) < spec.min_chars:
        return TOO_SHORT
    return TOO_LONG if spec.max_chars and len(text) > spec.max_chars else ""


def normalized(text: str, spec: CorpusSpec) -> str:
    """Text repaired where asked for, and in Unicode form NFC or as it stands."""
    if spec.repair and not text.isascii():
        import ftfy

        text = ftfy.fix_text(text, uncurl_quotes=False, normalization=None)
    if spec.normalize == "none" or text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)


def text_hash(data: bytes) -> bytes:
    """128 bits that name a text."""
    return hashlib.blake2b(data, digest_size=16).digest()


def dropped_id(path: str, piece: Piece, text: str) -> str:
    """Of what is left out: the hash of its text, or of where it stands when it has none."""
    told = text or f"{path}\0{piece.member or ''}\0{piece.offset}"
    return text_hash(told.encode()).hex()


def url_of(piece: Piece) -> str:
    """The page a document came from, where its member or its `url` column tells."""
    if piece.member and "://" in piece.member:
        return piece.member
    if piece.meta and '"url"' in piece.meta:
        found = json.loads(piece.meta).get("url")
        return found if isinstance(found, str) else ""
    return ""


def shown(value: Value) -> str:
    """A measured value as it is written down."""
    return value if isinstance(value, str) else f"{value:.6g}"
