"""The model card (README.md): what the model is, how to open it, and what it was made from, down to the raw files.

All of it is read from the manifests of the export's inputs, nothing volatile is written: the same spec and inputs give
the same card.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gptcli.export.ancestors import Ancestor
from gptcli.export.source import Source

_SOURCES_SHOWN = 20


def model_card(source: Source, figures: dict[str, Any], line: list[Ancestor], usage: str) -> str:
    """The text of README.md, with Hugging Face's metadata on top; `line` is what the model was made from."""
    parts = [
        _metadata(figures),
        f"# {_plain(source.ref.label)}\n",
        _what(source, figures),
        f"## Use\n\nIn this folder:\n\n```python\n{usage}```\n",
        "User text is never markup: pass `split_special_tokens=True` when encoding text that isn't yours.\n",
        "## Lineage\n\n" + "\n".join(_entry(ancestor) for ancestor in line),
        _licences(line),
        _raw_files(line),
    ]
    return "\n".join(part for part in parts if part)


def _metadata(figures: dict[str, Any]) -> str:
    apart = figures["layout"] == "base and adapter apart"
    rows = [
        f"library_name: {'peft' if apart else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags:",
        "- gptcli",
    ]
    if apart:
        rows.append("base_model: base")
    return "---\n" + "\n".join(rows) + "\n---\n"


def _what(source: Source, figures: dict[str, Any]) -> str:
    config = source.config()
    head = "tied to the embedding" if config.tie_word_embeddings else "its own"
    stops = ", ".join(f"{token} `{_plain(source.tokenizer.piece(token))}`" for token in source.stop_ids())
    rows = [
        f"- architecture: {config.model_type}, {figures['parameters']:,} parameters, {figures['layout']}",
        f"- {config.num_hidden_layers} layers, hidden_size {config.hidden_size}, {config.num_attention_heads} heads, "
        f"{config.num_key_value_heads} key/value heads, head {head}",
        f"- context: {config.max_position_embeddings:,} tokens; vocabulary: {config.vocab_size:,}",
        f"- weights: {figures['dtype']}",
        f"- {'tuned to answer chats' if source.chat else 'continues text'}; generation ends at {stops}",
    ]
    return "\n".join(rows) + "\n"


def _entry(ancestor: Ancestor) -> str:
    entry = ancestor.entry
    top = f"- **{entry.role}** `{_plain(entry.path)}` (content SHA-256 `{entry.content_sha256[:16]}`)"
    if ancestor.manifest is None:
        return top
    rows = [*_scalars(ancestor.manifest.stats), *_settings(ancestor.manifest.spec)]
    return top + "".join(f"\n  - {name}: {value}" for name, value in rows)


def _scalars(stats: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Figures as name and value; one level of tables is opened (splits, counts by reason)."""
    for name, value in stats.items():
        if isinstance(value, dict):
            inner = [
                f"{key} {_figure(item)}" for key, item in value.items() if isinstance(item, bool | int | float | str)
            ]
            tables = {key: item for key, item in value.items() if isinstance(item, dict)}
            if inner:
                yield name, ", ".join(inner)
            for key, item in tables.items():
                yield f"{name} {key}", ", ".join(f"{each} {_figure(figure)}" for each, figure in item.items())
        elif isinstance(value, bool | int | float | str):
            yield name, _figure(value)


def _settings(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    shown = [f"{key}={_figure(value)}" for key, value in spec.items() if isinstance(value, bool | int | float | str)]
    if shown:
        yield "settings", _plain(", ".join(shown))


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _plain(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _licence_counts(line: list[Ancestor]) -> dict[str, int]:
    """Documents by licence ("" where none is stated), over the sources of all corpora."""
    counts: dict[str, int] = {}
    for manifest in (ancestor.manifest for ancestor in line):
        if manifest is None or manifest.kind != "corpus":
            continue
        for found in manifest.stats.get("sources", []):
            licence = str(found.get("license") or manifest.spec.get("license") or "")
            counts[licence] = counts.get(licence, 0) + int(found["documents"])
    return counts


def _licences(line: list[Ancestor]) -> str:
    counts = _licence_counts(line)
    rows = [f"- {_plain(licence or 'not stated')}: {count:,} documents" for licence, count in sorted(counts.items())]
    body = "\n".join(rows) or "The corpus states no licence for its documents."
    return (
        f"\n## Licence\n\n{body}\n\nThe licences of the text above bear on what may be done with a model made from it; "
        "this card grants none.\n"
    )


def _raw_files(line: list[Ancestor]) -> str:
    files = [source for ancestor in line if ancestor.manifest for source in ancestor.manifest.sources()]
    if not files:
        return ""
    unique = sorted({(source.path, source.bytes, source.sha256) for source in files})
    rows = [f"- `{_plain(path)}`, {size:,} bytes, SHA-256 `{digest[:16]}`" for path, size, digest in unique]
    more = len(rows) - _SOURCES_SHOWN
    tail = f"\n- and {more:,} more; the manifests name them all" if more > 0 else ""
    return f"## Raw files ({len(rows):,})\n\n" + "\n".join(rows[:_SOURCES_SHOWN]) + tail + "\n"


def _plain(text: str) -> str:
    """Text of others on one line, without the backticks that would end its place in the card."""
    return " ".join(text.split()).replace("`", "'")
