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

_REPORT_BYTES = 1 << 22
_SHOWN = 4  # figures of a task that a person sees
_VAL_SHARE = 0.05


class EvalSpec(Spec):
    """Score a model on a split of a tokens artifact or on text, on chats, on tasks, or on all of them."""

    model: str = Field("base", min_length=1, description="run, RUN@best, RUN@1000, MODEL:1.2.0 or a directory")
    tokens: str = Field("main", description="score a split of tokens/NAME; empty: none (chats or tasks alone, say)")
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
    tasks: OneOrMore = Field(default_factory=list, description="task files (TOML), or folders of them")
    harness: OneOrMore = Field(
        default_factory=list, description="tasks of EleutherAI's lm-evaluation-harness by their names there"
    )
    harness_path: str = Field("", description="a folder of the harness's own task files, beside its catalogue")
    harness_shots: int = Field(-1, ge=-1, description="examples before each item of the harness; -1: as each task has")
    harness_limit: int = Field(0, ge=0, description="items of each task of the harness, the first so many; 0: all")
    harness_chat: bool | Literal["auto"] = Field(
        "auto", description="ask the harness's items as a user's turn; auto: as the model was tuned"
    )
    contamination: str = Field(
        "auto",
        description="tell items that stand in the train split of corpus/NAME apart; auto: the corpus the model was "
        "trained on, where it has n-grams; empty: don't",
    )
    seq_len: int = Field(0, ge=0, description="tokens a window; 0: what the model was trained with")
    sliding: int = Field(
        0, ge=0, description="score again in windows that move on by so many tokens, as sliding.*; 0: don't"
    )
    per_document: bool = Field(False, description="score every document again alone, as per_document.*")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision of the arithmetic; auto: what the device is fast in, and float32 for tasks on a CPU",
    )
    baselines: bool = Field(False, description="measure gzip -9 and xz -9e on the same documents too")
    batch_size: int = run_field(0, "sequences at once in each process; 0: 2048 tokens on a CPU, 32768 on a GPU", ge=0)
    offline: bool = run_field(False, "let the harness download nothing")

    @model_validator(mode="before")
    @classmethod
    def _without_a_split(cls, given: Any) -> Any:
        """Chats and tasks without a word of a split are scored alone."""
        if isinstance(given, dict) and not given.keys() & _OF_DOCUMENTS and any(map(given.get, _BESIDE_DOCUMENTS)):
            return {**given, "tokens": ""}
        return given

    @model_validator(mode="after")
    def _something_to_score(self) -> EvalSpec:
        if not (self.tokens or self.text or any(getattr(self, name) for name in _BESIDE_DOCUMENTS)):
            raise SpecError("nothing to score: tokens, text, chats, tasks and harness are all empty", "set one of them")
        if self.text and "split" in self.model_fields_set:
            raise SpecError("text files have no split", "leave out split, or score tokens instead of text")
        if DOCSTRINGS in self.text:
            raise SpecError(f"{DOCSTRINGS} holds chats, not text", f"use chats for it, or {STDLIB} as text")
        for key in ("baselines", "sliding", "per_document"):
            if getattr(self, key) and not (self.tokens or self.text):
                raise SpecError(f"{key} is about documents, and there are none", "set tokens or text")
        return self

    def content(self) -> dict[str, Any]:
        """The keys that decide the figures: those that are not read under the others are none of them."""
        content = super().content()
        unread = {
            *(("separator",) if not self.text else ("tokens", "split")),
            *(("split", "limit", "sliding", "per_document") if not (self.tokens or self.text) else ()),
            *(("val_share",) if not self.chats else ()),
            *(("contamination",) if not self.tasks else ()),
            *(("harness_path", "harness_shots", "harness_limit", "harness_chat") if not self.harness else ()),
        }
        return {key: value for key, value in content.items() if key not in unread}


SPEC = EvalSpec
# Keys that ask for a split or text to be scored, and those of what may be scored without either.
_OF_DOCUMENTS = {"tokens", "split", "text", "limit", "baselines", "sliding", "per_document"}
_BESIDE_DOCUMENTS = ("chats", "tasks", "harness")


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
    if spec.harness and spec.harness_path:
        typed.append(("harness", [spec.harness_path]))
    entries += _corpus_input(spec, project)
    if not typed and not spec.tasks:
        return Inputs(tuple(entries))
    from gptcli.records.sources import expand, fingerprint, source_inputs

    sources: list[Source] = []
    if spec.tasks:
        entries, sources = _task_inputs(spec, project, known, entries)
    for role, names in typed:
        files = expand(names, project.root)
        found = fingerprint(files, known)
        entries += source_inputs(files, found, role)
        sources += found
        if role == "chats":
            _require_unseen(spec, project, found)
    return Inputs(tuple(entries), tuple({source.path: source for source in sources}.values()))


def _task_inputs(
    spec: EvalSpec, project: Project, known: tuple[Source, ...], entries: list[Input]
) -> tuple[list[Input], list[Source]]:
    """`entries` with those of the task files and of the files they name; and all of these as sources."""
    from gptcli.eval.task_files import open_tasks  # Arrow comes with it
    from gptcli.records.sources import fingerprint, source_inputs

    tasks = open_tasks(spec.tasks, project)
    sources: dict[str, Source] = {}
    for role, files in (
        ("task", [named.file for named in tasks]),
        ("items", [file for named in tasks for file in named.files.every]),
    ):
        found = fingerprint(files, known)
        entries = [*entries, *source_inputs(files, found, role)]
        sources |= {source.path: source for source in found}
    return entries, list(sources.values())


def _corpus_input(spec: EvalSpec, project: Project) -> list[Input]:
    """The corpus whose train split items are looked for in, where one was named."""
    if not spec.tasks or spec.contamination in ("", "auto"):
        return []
    place = project.place("corpus", spec.contamination)
    return [Input("corpus", project.relative(place), read_manifest(place, "corpus").content_sha256)]


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
    """Bytes: reports are small, and what is kept of items is about as large as they are."""
    return _REPORT_BYTES + 4 * sum(source.bytes for source in inputs.sources)


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows a person reads."""
    between = stats.get("intervals", {})
    rows = []
    if "loss" in stats:
        rows += [
            ("scored", f"{stats['tokens']:,} tokens of {stats['documents']:,} documents ({_scored(stats)})"),
            ("loss", f"{stats['loss']:.4f} nats a token, perplexity {stats['perplexity']:.2f}"),
            ("bits per byte", f"{stats['bits_per_byte']:.4f}{_within(between.get('bits_per_byte'))}"),
            *(
                (f"  {label}", f"{stats[key]:.4f} each document alone, {stats[key + '_stream']:.4f} as one stream")
                for label, key in (("gzip -9", "gzip_bits_per_byte"), ("xz -9e", "xz_bits_per_byte"))
                if key in stats
            ),
            *(
                (f"  {label}", f"{stats[name + '.bits_per_byte']:.4f}")
                for label, name in (("windows that overlap", "sliding"), ("each document alone", "per_document"))
                if name + ".bits_per_byte" in stats
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
    return rows + _task_rows(stats, between)


def _task_rows(stats: dict[str, Any], between: dict[str, Any]) -> list[tuple[str, str]]:
    """A row a task: its first figures, the very first with its interval."""
    rows = []
    for task, names in sorted(stats.get("tasks", {}).items()):
        shown = [
            f"{name} {_short(stats[f'{task}.{name}'])}{_within(between.get(f'{task}.{name}')) if not at else ''}"
            for at, name in enumerate(names[:_SHOWN])
        ]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        rows.append((task, f"{', '.join(shown)}{more} ({stats[f'{task}.items']:,} items)"))
    return rows


def _short(value: Any) -> str:
    return "no number" if value is None else f"{value:.4g}"


def _within(ends: Any) -> str:
    return f" ({ends[0]:.4f} to {ends[1]:.4f})" if ends else ""


def _scored(stats: dict[str, Any]) -> str:
    return f"{human_bytes(stats['text_bytes'])}, windows of {stats['seq_len']:,}"


# The figures of each rule by which documents are scored.
RULE_FIGURES = ("loss", "perplexity", "bits_per_byte", "accuracy", "top5_accuracy", "tokens")
_OF_TEXT = (
    *RULE_FIGURES,
    "word_perplexity",
    "words",
    "ece",
    "ece_equal_mass",
    "confidence",
    "documents",
    "text_bytes",
    "seq_len",
)
_OF_BASELINES = tuple(f"{name}_bits_per_byte{way}" for name in ("gzip", "xz") for way in ("", "_stream"))
_OF_CHATS = (
    "chat_loss",
    "chat_perplexity",
    "chat_accuracy",
    "chat_top5_accuracy",
    "chats",
    "chat_tokens",
    "chats_val_share",
)


def figures_of(spec: EvalSpec) -> list[str]:
    """The figures of text and chats that an evaluation by this spec may have; those of tasks their kinds tell."""
    other_rules = [name for name, wanted in (("sliding", spec.sliding), ("per_document", spec.per_document)) if wanted]
    return [
        *(_OF_TEXT if spec.tokens or spec.text else ()),
        *(f"{rule}.{name}" for rule in other_rules for name in RULE_FIGURES),
        *(_OF_BASELINES if spec.baselines else ()),
        *(_OF_CHATS if spec.chats else ()),
    ]
