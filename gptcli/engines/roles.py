"""Which tokens of a tokenizer.json are bos, eos and pad, and which are no text: what the files beside it say.

tokenizer_config.json comes first, then special_tokens_map.json; config.json and generation_config.json give ids alone.
All are Hugging Face's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcli.errors import ArtifactError

CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"
MODEL_CONFIGS = ("config.json", "generation_config.json")
_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")

# How well-known tokenizers spell the end of a document; the second row ends a turn, and a document where nothing else
# does.
ENDS = (
    (
        "<|endoftext|>",
        "</s>",
        "<|end_of_text|>",
        "<eos>",
        "<｜end▁of▁sentence｜>",
        "<|eos|>",
        "[EOS]",
        "<EOS>",
        "<|eod|>",
    ),
    ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"),
)


@dataclass(frozen=True)
class Roles:
    """`tokens`: role (`eos_token`) → spelling; `names`: every spelling that some file calls special; `adds_bos`: what
    add_bos_token says, None where nothing does; `ids`: role (`eos_token_id`) → the ids that a model's config names."""

    tokens: dict[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    adds_bos: bool | None = None
    ids: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_roles(directory: Path, only: Collection[str] | None = None) -> Roles:
    """The roles that the files of `directory` give, or those named in `only`. Raises ArtifactError where one of them is
    no JSON object."""

    def read(name: str) -> dict[str, Any]:
        return read_object(directory / name) if only is None or name in only else {}

    config, mapped = read(CONFIG_FILE), read(MAP_FILE)
    tokens = {**dict(_roles(mapped)), **dict(_roles(config))}
    names = {*tokens.values(), *_listed(config), *_listed(mapped)}
    ids: dict[str, tuple[int, ...]] = {}
    for name in reversed(MODEL_CONFIGS):
        ids |= _ids(read(name))
    adds_bos = config.get("add_bos_token")
    return Roles(tokens, frozenset(names), adds_bos if isinstance(adds_bos, bool) else None, ids)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no file. Raises ArtifactError for anything else."""
    try:
        found = json.loads(path.read_bytes())
        json.dumps(found, ensure_ascii=False).encode()  # half a character, which JSON can spell, is refused here
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is no JSON ({error})", "fetch it again from its source") from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no JSON object", "fetch it again from its source")
    return found


def spelling(token: Any) -> str | None:
    """The text of a token as configs write it: a string, or an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _roles(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        token = spelling(value)
        if key.endswith("_token") and token is not None:
            yield key, token


def _listed(config: dict[str, Any]) -> Iterator[str]:
    rows: list[Any] = []
    for key in _LISTS:
        found = config.get(key)
        rows += found if isinstance(found, list) else list(found.values()) if isinstance(found, dict) else []
    added = config.get("added_tokens_decoder")
    if isinstance(added, dict):
        rows += [token for token in added.values() if isinstance(token, dict) and token.get("special") is True]
    yield from (token for token in map(spelling, rows) if token is not None)


def _ids(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    found = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = config.get(key)
        ids = value if isinstance(value, list) else [value]
        if ids and all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in ids):
            found[key] = tuple(ids)
    return found
