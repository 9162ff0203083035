"""What to measure of which model, on what; and what the stage reads, told without torch or Arrow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.manifest import MANIFEST, Input, Inputs, Manifest, Source, manifest_of, read_manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError, SpecError
from gptcli.inference.adapter_base import adapter_base
from gptcli.records.stdlib import DOCSTRINGS, STDLIB
from gptcli.spec import OneOrMore, Spec, run_field

STAGE = "eval"
KIND = "evaluation"
FOLDER = "evals"
DEFAULT_NAME = "base"
TRAINED = False

REPORT = "report.json"
_REPORT_BYTES = 1 << 20
_VAL_SHARE = 0.05


class EvalSpec(Spec):
    """Score a model on a split of a tokens artifact or on text, on chats, or on both."""

    model: str = Field("base", min_length=1, description="run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory")
    tokens: str = Field("main", description="score a split of tokens/NAME; empty: none (chats alone, say)")
    split: Literal["train", "val", "test"] = Field("val", description="which split of the tokens artifact")
    text: OneOrMore = Field(
        default_factory=list, description="score these text files, folders or globs instead of a split"
    )
    separator: str = Field("none", min_length=1, description="where text files are cut: none, line, blank_lines, …")
    limit: int = Field(0, ge=0, description="documents, the first so many; 0: all")
    chats: OneOrMore = Field(
        default_factory=list, description="chats whose held-out answers are scored: files, python:docstrings"
    )
    val_share: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        "auto", description="share of the chats, by their question, that is held out; auto: as the adapter's training"
    )
    seq_len: int = Field(0, ge=0, description="tokens a window; 0: what the model was trained with")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="precision of the arithmetic")
    baselines: bool = Field(False, description="measure gzip -9 and xz -9e on the same documents too")
    batch_size: int = run_field(0, "sequences at once; 0: 4096 tokens on a CPU, 32768 on a GPU", ge=0)

    @model_validator(mode="before")
    @classmethod
    def _chats_alone(cls, given: Any) -> Any:
        """Chats without a word of a split are scored alone."""
        if isinstance(given, dict) and given.get("chats") and not given.keys() & _OF_DOCUMENTS:
            return {**given, "tokens": ""}
        return given

    @model_validator(mode="after")
    def _something_to_score(self) -> EvalSpec:
        if not (self.tokens or self.text or self.chats):
            raise SpecError("nothing to score: tokens, text and chats are all empty", "set one of them")
        if self.text and "split" in self.model_fields_set:
            raise SpecError("text files have no split", "leave out split, or score tokens instead of text")
        if DOCSTRINGS in self.text:
            raise SpecError(f"{DOCSTRINGS} holds chats, not text", f"use chats for it, or {STDLIB} as text")
        if self.baselines and not (self.tokens or self.text):
            raise SpecError("baselines compress documents, and there are none", "set tokens or text")
        return self

    def content(self) -> dict[str, Any]:
        """The keys that decide the figures: those that are not read under the others are none of them."""
        content = super().content()
        unread = {
            *(("separator",) if not self.text else ("tokens", "split")),
            *(("split", "limit") if not (self.tokens or self.text) else ()),
            *(("val_share",) if not self.chats else ()),
        }
        return {key: value for key, value in content.items() if key not in unread}


SPEC = EvalSpec
_OF_DOCUMENTS = {"tokens", "split", "text", "limit", "baselines"}  # keys that ask for a split or text to be scored


def inputs(spec: EvalSpec, project: Project, previous: Manifest | None) -> Inputs:
    """The model, and what it is scored on. ArtifactError or SpecError when one of them isn't there."""
    known = previous.sources() if previous is not None else ()
    entries = _model_inputs(spec, project)
    typed = []
    if spec.text:
        typed.append(("text", spec.text))
    elif spec.tokens:
        entries.append(_tokens_input(spec, project))
    if spec.chats:
        typed.append(("chats", spec.chats))
    if not typed:
        return Inputs(tuple(entries))
    from gptcli.records.sources import expand, fingerprint, source_inputs

    sources: list[Source] = []
    for role, names in typed:
        files = expand(names, project.root)
        found = fingerprint(files, known)
        entries += source_inputs(files, found, role)
        sources += found
        if role == "chats":
            _require_unseen(spec, project, found)
    return Inputs(tuple(entries), tuple({source.path: source for source in sources}.values()))


def held_out_share(spec: EvalSpec, project: Project) -> float:
    """The share of the chats to score: as asked for, else what the adapter held out, else 0.05."""
    if spec.val_share != "auto":
        return spec.val_share
    return _training(spec, project)[0] or _VAL_SHARE


def _training(spec: EvalSpec, project: Project) -> tuple[float | None, tuple[Source, ...]]:
    """The share of its chats that an adapter of ours held out, and their files; None and none for other models."""
    manifest = manifest_of(resolve_model(project, spec.model).directory)
    if manifest is None:
        return None, ()
    training = manifest.spec.get("training", manifest.spec)  # a version carries its checkpoint's spec so
    share = training.get("val_share") if "chats" in training else None
    return share, manifest.sources() if share is not None else ()


def _require_unseen(spec: EvalSpec, project: Project, chats: tuple[Source, ...]) -> None:
    """Raise SpecError when some of what would count as held out is what the adapter learned from."""
    share, learned = _training(spec, project)
    if share is None or held_out_share(spec, project) <= share:
        return
    known = {source.path for source in learned} | {source.sha256 for source in learned}
    for source in chats:
        if source.path in known or source.sha256 in known:
            raise SpecError(
                f"{spec.model} held out {share:g} of {source.path} and learned from the rest: "
                f"with val_share = {held_out_share(spec, project):g} chats it has seen would count as held out",
                "leave out val_share" if share else "score other chats, or fine-tune with a val_share",
            )


def _model_inputs(spec: EvalSpec, project: Project) -> list[Input]:
    """The model, and the base of an adapter from elsewhere; an adapter of ours carries its base's hash itself."""
    model = resolve_model(project, spec.model)
    entries = [model_input(project, spec.model)]
    if model.kind == "adapter" and manifest_of(model.directory) is None:
        base = adapter_base(project, model.directory).resolve()
        entries.append(model_input(project, str(base), "base"))
    return entries


def _tokens_input(spec: EvalSpec, project: Project) -> Input:
    place = project.place("tokens", spec.tokens)
    if not (place / MANIFEST).is_file():
        raise ArtifactError(
            f"there is no tokens artifact {spec.tokens} ({project.relative(place)})",
            f"gptcli tokenize --name {spec.tokens}, or score a text file with --text FILE",
        )
    return Input("tokens", project.relative(place), read_manifest(place, "tokens").content_sha256)


def disk_needed(spec: EvalSpec, project: Project, inputs: Inputs) -> int:
    """Bytes: the report is small whatever is scored."""
    return _REPORT_BYTES


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows a person reads."""
    rows = []
    if "loss" in stats:
        rows += [
            ("scored", f"{stats['tokens']:,} tokens of {stats['documents']:,} documents ({_scored(stats)})"),
            ("loss", f"{stats['loss']:.4f} nats a token, perplexity {stats['perplexity']:.2f}"),
            ("bits per byte", f"{stats['bits_per_byte']:.4f}"),
            *(
                (f"  {label}", f"{stats[key]:.4f} each document alone, {stats[key + '_stream']:.4f} as one stream")
                for label, key in (("gzip -9", "gzip_bits_per_byte"), ("xz -9e", "xz_bits_per_byte"))
                if key in stats
            ),
            ("next token", f"{stats['accuracy']:.2%} first, {stats['top5_accuracy']:.2%} among the first five"),
        ]
    if "chat_loss" in stats:
        rows += [
            ("chats", f"{stats['chats']:,} held out, {stats['chat_tokens']:,} tokens of answers"),
            *((f"left out: {reason}", f"{count:,}") for reason, count in stats["chats_left_out"].items()),
            ("chat loss", f"{stats['chat_loss']:.4f} nats a token, perplexity {stats['chat_perplexity']:.2f}"),
            ("chat next token", f"{stats['chat_accuracy']:.2%} first, {stats['chat_top5_accuracy']:.2%} among five"),
        ]
    return rows


def _scored(stats: dict[str, Any]) -> str:
    return f"{human_bytes(stats['text_bytes'])}, windows of {stats['seq_len']:,}"


# Every figure an evaluation may have, for --fail-if.
FIGURES = (
    "loss",
    "perplexity",
    "bits_per_byte",
    "accuracy",
    "top5_accuracy",
    "tokens",
    "documents",
    "text_bytes",
    "gzip_bits_per_byte",
    "gzip_bits_per_byte_stream",
    "xz_bits_per_byte",
    "xz_bits_per_byte_stream",
    "chat_loss",
    "chat_perplexity",
    "chat_accuracy",
    "chat_top5_accuracy",
    "chats",
    "chat_tokens",
)
