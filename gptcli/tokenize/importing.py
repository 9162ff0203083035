"""Taking somebody else's tokenizer: which files it is, their hash, and a copy that every later stage can open.

What can be taken: a sentencepiece model; a tokenizer.json; the two files of a byte-level BPE from before there was one,
which are made into a tokenizer.json. Finding and hashing loads no engine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import canonical_json, sha256_file, write_bytes
from gptcli.artifacts.manifest import read_manifest
from gptcli.engines.roles import CONFIG_FILE, MAP_FILE, MODEL_CONFIGS, Roles, read_object, read_roles, spelling
from gptcli.errors import ArtifactError

MODEL, JSON = "tokenizer.model", "tokenizer.json"
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
TEMPLATE = "chat_template.jinja"
ADDED_TOKENS = "added_tokens.json"
KINDS = "tokenizer.model, tokenizer.json, vocab.json with merges.txt, or encoder.json with vocab.bpe"
# Both files of a tokenizer must give the same ids; this text shows most of what tells two apart.
_COMPARED = "The 2nd café's   price:\n\t$1,234.50 for naïve “quotes”, 日本語, Привет and \U0001f600!\n\nI'll go."


@dataclass(frozen=True)
class Source:
    """The files of a tokenizer: `main` and, for a vocabulary, its `merges`; `twin`: a tokenizer.json beside a
    tokenizer.model; `beside`: what else tells of it, taken only where the main file has its usual name."""

    main: Path
    merges: Path | None = None
    twin: Path | None = None
    beside: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that decide what the import gives."""
        return (self.main, *(path for path in (self.merges, self.twin) if path), *self.beside)

    @property
    def content_hash(self) -> str:
        """SHA-256, in hex, of the names and contents of the files."""
        listing = [[path.name, sha256_file(path)] for path in sorted(self.files, key=lambda path: path.name)]
        return hashlib.sha256(canonical_json(listing)).hexdigest()


def find(path: Path) -> Source:
    """The tokenizer at `path`, a directory or a file. Raises ArtifactError where there is none, or half of one."""
    try:
        if path.is_dir():
            return _in_directory(path)
        if path.is_file():
            return _from_file(path)
    except OSError as error:
        raise ArtifactError(f"{path} can't be read ({error.strerror or error})", "check the path") from None
    raise ArtifactError(f"there is no tokenizer at {path}", f"name a directory or a file: {KINDS}")


def import_tokenizer(source: Source, target: Path) -> None:
    """Write the tokenizer into the folder `target`, to be opened by Tokenizer.load and by transformers.

    Files that can stay as they are stay so byte for byte. (What transformers makes of a sentencepiece model without a
    tokenizer.json is its own: ids of the same vocabulary, but not everywhere the same ones.) Raises ArtifactError where
    they are broken, or are not the same tokenizer.
    """
    from gptcli.tokenizer import Tokenizer  # loads engines, which finding and hashing need not

    for path in source.beside:
        if path.name in (CONFIG_FILE, MAP_FILE, TEMPLATE):
            write_bytes(target / path.name, path.read_bytes())
    if source.merges is not None:
        _convert(source, source.merges, target)
    elif source.main.suffix == ".json":
        write_bytes(target / JSON, source.main.read_bytes())
        _name_roles(source, target)
    else:
        write_bytes(target / MODEL, source.main.read_bytes())
        if source.twin is not None:
            if not _is_ours(source.main.parent):  # what gptcli wrote was compared then
                _require_same(source)
            write_bytes(target / JSON, source.twin.read_bytes())
        _name_class(source, target)
    Tokenizer.load(target)


def _in_directory(directory: Path) -> Source:
    inner = directory / "tokenizer"
    if not _names(directory) and inner.is_dir():
        directory = inner
    names = _names(directory)
    beside = _beside(directory)
    if MODEL in names:
        twin = directory / JSON if JSON in names else None
        return Source(directory / MODEL, twin=twin, beside=_without_ids(beside, alone=twin is None))
    if JSON in names:
        return Source(directory / JSON, beside=beside)
    for vocab, merges in PAIRS:
        if vocab in names and merges in names:
            return Source(directory / vocab, directory / merges, beside=beside)
        if vocab in names or merges in names:
            there, missing = (vocab, merges) if vocab in names else (merges, vocab)
            raise ArtifactError(f"{directory}: {there} is there, but not {missing}", f"fetch {missing} beside it")
    models = sorted(path.name for path in directory.glob("*.model") if path.is_file())
    hint = f"name a directory that holds {KINDS}"
    if models:
        hint = f"name the file itself: {directory / models[0]}"
    raise ArtifactError(f"there is no tokenizer in {directory}", hint)


def _from_file(path: Path) -> Source:
    if path.name in (MODEL, JSON):
        return Source(path, beside=_without_ids(_beside(path.parent), alone=path.name == MODEL))
    for vocab, merges in PAIRS:
        if path.name in (vocab, merges):
            other = path.parent / (merges if path.name == vocab else vocab)
            if not other.is_file():
                raise ArtifactError(f"{path} needs {other.name} beside it", f"fetch {other.name} too")
            return Source(path.parent / vocab, path.parent / merges, beside=_beside(path.parent))
    if path.suffix in (".model", ".json"):
        return Source(path)
    raise ArtifactError(f"{path} is no tokenizer by its name", f"what can be taken: {KINDS}, or any *.model or *.json")


def _names(directory: Path) -> set[str]:
    known = {MODEL, JSON, *(name for pair in PAIRS for name in pair)}
    return {name for name in known if (directory / name).is_file()}


def _beside(directory: Path) -> tuple[Path, ...]:
    """The files that tell of a tokenizer. A model's own configs are asked only where they don't name an eos."""
    found = [directory / name for name in (CONFIG_FILE, MAP_FILE, TEMPLATE, ADDED_TOKENS)]
    told = [read_object(path) for path in found[:2]]
    if not any(spelling(each.get("eos_token")) for each in told):
        found += [directory / name for name in MODEL_CONFIGS]
    return tuple(path for path in found if path.is_file())


def _without_ids(beside: tuple[Path, ...], alone: bool) -> tuple[Path, ...]:
    """Without the files that tell ids which a whole tokenizer knows itself; `alone`: a sentencepiece model."""
    idle = {ADDED_TOKENS, *MODEL_CONFIGS} if alone else {ADDED_TOKENS}
    return tuple(path for path in beside if path.name not in idle)


def _convert(source: Source, merges: Path, target: Path) -> None:
    from gptcli.engines import conversion

    config = _beside_object(source, CONFIG_FILE)
    added = _beside_object(source, ADDED_TOKENS)
    for piece, number in added.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise ArtifactError(f"{source.main.with_name(ADDED_TOKENS)}: {piece!r} has no id", "fetch it again")
    roles = _roles(source)
    vocab = conversion.read_vocab(source.main.read_bytes(), str(source.main))
    pairs = conversion.read_merges(merges.read_bytes(), str(merges), vocab)
    try:
        content = conversion.tokenizer_json(vocab, pairs, config, added, roles)
    except ArtifactError as error:
        raise ArtifactError(f"{source.main}: {error.message}", error.hint) from None
    data = json.dumps(content, ensure_ascii=False).encode()
    write_bytes(target / JSON, data)
    engine = _open_json(source, data)
    _write_config(target, conversion.tokenizer_config(config, engine.piece(engine.eos_id)))


def _name_roles(source: Source, target: Path) -> None:
    """Let tokenizer_config.json name what only other files say, or nothing does but a well-known spelling: later stages
    and other programs see only what travels with a model."""
    from gptcli.engines.conversion import FAST_CLASS, NO_LENGTH_LIMIT

    engine = _open_json(source, source.main.read_bytes())
    config = _beside_object(source, CONFIG_FILE)
    wanted = {"bos_token": engine.bos_id, "eos_token": engine.eos_id, "pad_token": engine.pad_id}
    known = _roles(source).tokens
    missing: dict[str, Any] = {
        role: engine.piece(token_id) for role, token_id in wanted.items() if token_id is not None and role not in known
    }
    if not config:
        missing |= {"clean_up_tokenization_spaces": False, "model_max_length": NO_LENGTH_LIMIT}
    if "tokenizer_class" not in config:
        missing["tokenizer_class"] = FAST_CLASS
    if missing:
        _write_config(target, {**config, **missing})


def _name_class(source: Source, target: Path) -> None:
    """Let tokenizer_config.json say what opens a sentencepiece model, and its special tokens: transformers would
    otherwise take a tokenizer for it that the model's own config.json suggests, with ids beyond the vocabulary."""
    from gptcli.engines.conversion import FAST_CLASS, NO_LENGTH_LIMIT
    from gptcli.tokenizer import open_engine

    config = _beside_object(source, CONFIG_FILE)
    if "tokenizer_class" in config:
        return
    engine, known = open_engine(source.main, source.main.read_bytes()), _roles(source).tokens
    ids = {
        "unk_token": engine.unk_id,
        "bos_token": engine.bos_id,
        "eos_token": engine.eos_id,
        "pad_token": engine.pad_id,
    }
    said: dict[str, Any] = {
        role: engine.piece(token_id) for role, token_id in ids.items() if token_id is not None and role not in known
    }
    if source.twin is not None:
        said["tokenizer_class"] = FAST_CLASS
    else:
        said |= {"tokenizer_class": "LlamaTokenizer", "add_bos_token": engine.bos_id is not None, "legacy": False}
    said |= {"clean_up_tokenization_spaces": False, "model_max_length": NO_LENGTH_LIMIT}
    _write_config(target, {**said, **config})


def _is_ours(directory: Path) -> bool:
    """Whether both files are those that gptcli made of one tokenizer: the tokens' manifest has their sums."""
    try:
        sums = {entry.path: entry.sha256 for entry in read_manifest(directory.parent, "tokens").files}
    except ArtifactError:
        return False
    names = [f"{directory.name}/{name}" for name in (MODEL, JSON)]
    return all(sums.get(name) == sha256_file(directory.parent / name) for name in names)


def _require_same(source: Source) -> None:
    """tokenizer.model and tokenizer.json of one directory must be one tokenizer. Raises ArtifactError."""
    from gptcli.tokenizer import open_engine

    twin = source.twin
    assert twin is not None
    ours, theirs = open_engine(source.main, source.main.read_bytes()), _open_json(source, twin.read_bytes(), twin)
    hint = f"name the one that the model was trained with, {source.main} or {twin}, in place of their directory"
    if ours.vocab_size != theirs.vocab_size:
        raise ArtifactError(
            f"{source.main.parent}: {MODEL} has {ours.vocab_size:,} ids, {JSON} has {theirs.vocab_size:,}", hint
        )
    for token_id in range(ours.vocab_size):
        if ours.piece(token_id) != theirs.piece(token_id):
            raise ArtifactError(
                f"{source.main.parent}: id {token_id} is {ours.piece(token_id)!r} in {MODEL}, "
                f"{theirs.piece(token_id)!r} in {JSON}",
                hint,
            )
    if ours.encode(_COMPARED) != theirs.encode(_COMPARED):
        raise ArtifactError(f"{source.main.parent}: {MODEL} and {JSON} cut the same text into other pieces", hint)


def _open_json(source: Source, data: bytes, path: Path | None = None) -> Any:
    from gptcli.engines.tokenizers_json import TokenizersJson

    return TokenizersJson(data, str(path or source.main), _roles(source))


def _roles(source: Source) -> Roles:
    """What the files taken say, and no others that may lie beside them."""
    return read_roles(source.main.parent, {path.name for path in source.beside})


def _beside_object(source: Source, name: str) -> dict[str, Any]:
    path = source.main.with_name(name)
    return read_object(path) if path in source.beside else {}


def _write_config(target: Path, config: dict[str, Any]) -> None:
    write_bytes(target / CONFIG_FILE, (json.dumps(config, ensure_ascii=False, indent=1) + "\n").encode())
