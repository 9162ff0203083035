"""The tokenizer files of a Hugging Face directory, taken along with its weights.

A sentencepiece model or a tokenizer.json stays as it is; the two files of a byte-level BPE from before there was one
become a tokenizer.json. Engines are loaded only when something is written.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gptcli.artifacts.durable import write_bytes
from gptcli.engines.vocabulary_pair import ADDED_TOKENS, find_pair, json_of_pair
from gptcli.errors import ArtifactError
from gptcli.models.importers.foreign import ForeignTokenizer

MODEL, JSON = "tokenizer.model", "tokenizer.json"
TEMPLATE, CONFIG, MAP = "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"


def tokenizer_files(directory: Path) -> ForeignTokenizer | None:
    """The tokenizer of a directory, None where there is none. Of a model and a tokenizer.json both are taken."""
    engines = [directory / name for name in (MODEL, JSON) if (directory / name).is_file()]
    beside = [directory / name for name in (CONFIG, MAP, TEMPLATE) if (directory / name).is_file()]
    if engines:
        return ForeignTokenizer((*engines, *beside), partial(_copy, engines, beside))
    pair = find_pair(directory)
    if pair is None:
        return None
    added = [directory / ADDED_TOKENS] if (directory / ADDED_TOKENS).is_file() else []
    return ForeignTokenizer((*pair, *added, *beside), partial(_convert, *pair, beside))


def tokenizer_at(path: Path) -> ForeignTokenizer | None:
    """The tokenizer that a path names: a directory, one with a folder `tokenizer` in it, or a file of one."""
    if path.is_dir():
        return tokenizer_files(path) or tokenizer_files(path / "tokenizer")
    if path.is_file() and path.suffix in (".model", ".json"):
        beside = [path.with_name(name) for name in (CONFIG, MAP, TEMPLATE) if path.with_name(name).is_file()]
        return ForeignTokenizer((path, *beside), partial(_copy, [path], beside))
    return None


def _copy(engines: list[Path], beside: list[Path], target: Path) -> None:
    from gptcli.tokenizer import open_engine

    opened = [open_engine(path, path.read_bytes()) for path in engines]
    if len(opened) == 2 and opened[0].vocab_size != opened[1].vocab_size:
        raise ArtifactError(
            f"{engines[0].parent}: {MODEL} has {opened[0].vocab_size:,} ids, {JSON} has {opened[1].vocab_size:,}",
            f"--tokenizer {engines[1]} takes the one that the model was trained with",
        )
    for path in engines:
        write_bytes(target / (MODEL if path.suffix == ".model" else JSON), path.read_bytes())
    for path in beside:
        write_bytes(target / path.name, path.read_bytes())


def _convert(vocab: Path, merges: Path, beside: list[Path], target: Path) -> None:
    data, config = json_of_pair(vocab, merges)
    for path in beside:
        if path.name != CONFIG:
            write_bytes(target / path.name, path.read_bytes())
    write_bytes(target / JSON, data)
    write_bytes(target / CONFIG, config)
