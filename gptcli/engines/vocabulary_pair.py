"""A byte-level BPE in two files, a vocabulary and its merges, as the tokenizer.json that they amount to."""

from __future__ import annotations

import json
from pathlib import Path

from gptcli.engines import conversion
from gptcli.engines.roles import CONFIG_FILE, read_object, read_roles
from gptcli.errors import ArtifactError

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
ADDED_TOKENS = "added_tokens.json"


def find_pair(directory: Path) -> tuple[Path, Path] | None:
    """The two files in a directory, None where it has not both."""
    for vocab, merges in PAIRS:
        if (directory / vocab).is_file() and (directory / merges).is_file():
            return directory / vocab, directory / merges
    return None


def json_of_pair(vocab: Path, merges: Path) -> tuple[bytes, bytes]:
    """tokenizer.json and tokenizer_config.json made of the two files and of what lies beside them. Raises ArtifactError
    where they are broken, do not go together, or are of a model whose words are not known here."""
    from gptcli.engines.tokenizers_json import TokenizersJson

    config, roles = read_object(vocab.with_name(CONFIG_FILE)), read_roles(vocab.parent)
    added = read_object(vocab.with_name(ADDED_TOKENS))
    if any(not isinstance(number, int) or isinstance(number, bool) for number in added.values()):
        raise ArtifactError(f"{vocab.with_name(ADDED_TOKENS)}: a token has no id", "fetch it again from its source")
    pieces = conversion.read_vocab(vocab.read_bytes(), str(vocab))
    pairs = conversion.read_merges(merges.read_bytes(), str(merges), pieces)
    try:
        content = conversion.tokenizer_json(pieces, pairs, config, added, roles)
    except ArtifactError as error:
        raise ArtifactError(f"{vocab}: {error.message}", error.hint) from None
    data = json.dumps(content, ensure_ascii=False).encode()
    engine = TokenizersJson(data, str(vocab), roles)
    told = conversion.tokenizer_config(config, engine.piece(engine.eos_id))
    return data, (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode()
