"""bos, eos and pad of a tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptcli.engines.json_vocabulary import Vocabulary
from gptcli.engines.roles import CONFIG_FILE, ENDS, Roles
from gptcli.errors import ArtifactError


@dataclass(frozen=True)
class RoleIds:
    bos_id: int | None
    eos_id: int
    pad_id: int | None


def find_roles(vocabulary: Vocabulary, post_processor: Any, roles: Roles, name: str) -> RoleIds:
    """The ids that end a document, begin one and fill a row.

    bos is taken only where the tokenizer itself puts it: add_bos_token in its config says so or, where nothing is said,
    its post-processor begins a text with it. Raises ArtifactError where no eos, or no single one, can be told.
    """
    ids = {piece: token_id for token_id, piece in vocabulary.pieces.items()}
    put = _begins_with(post_processor, ids)
    named = _id_of("bos_token", roles, ids)
    bos = (named if named is not None else put) if roles.adds_bos else put if roles.adds_bos is None else None
    bos = bos if bos in vocabulary.control else None
    pad = _id_of("pad_token", roles, ids)
    return RoleIds(bos, _eos(vocabulary, roles, ids, name), pad if pad in vocabulary.control else None)


def _id_of(role: str, roles: Roles, ids: dict[str, int]) -> int | None:
    if role in roles.tokens:
        return ids.get(roles.tokens[role])
    numbers = roles.ids.get(f"{role}_id", ())
    return numbers[0] if len(numbers) == 1 else None


def _eos(vocabulary: Vocabulary, roles: Roles, ids: dict[str, int], name: str) -> int:
    hint = f'name it beside the file: {{"eos_token": "<|endoftext|>"}} in {CONFIG_FILE}, by the vocabulary\'s spelling'
    token = roles.tokens.get("eos_token")
    if token is not None:
        if token not in ids:
            raise ArtifactError(f"{name}: eos_token is {token!r}, which the vocabulary has not", hint)
        if ids[token] not in vocabulary.control:
            raise ArtifactError(f"{name}: eos_token is {token!r}, which is a character of ordinary text", hint)
        return ids[token]
    numbers = [number for number in roles.ids.get("eos_token_id", ()) if number in vocabulary.control]
    if len(numbers) == 1:
        return numbers[0]
    for row in ENDS:
        known = [spelling for spelling in row if spelling in ids and (not numbers or ids[spelling] in numbers)]
        if len(known) == 1:
            return ids[known[0]]
        if known:
            raise ArtifactError(f"{name}: {' and '.join(known)} may each end a document", hint)
    raise ArtifactError(f"{name}: nothing says which token ends a document", hint)


def _begins_with(post_processor: Any, ids: dict[str, int]) -> int | None:
    """The id that a post-processor puts before a single text."""
    for processor in _flat(post_processor):
        kind = processor.get("type")
        if kind == "TemplateProcessing":
            first = next(iter(processor.get("single") or []), None)
            token = first.get("SpecialToken") if isinstance(first, dict) else None
            if isinstance(token, dict):
                return ids.get(str(token.get("id")))
        elif kind in ("RobertaProcessing", "BertProcessing"):
            pair = processor.get("cls")
            return ids.get(str(pair[0])) if isinstance(pair, list) and pair else None
    return None


def _flat(processor: Any) -> Iterator[dict[str, Any]]:
    if isinstance(processor, dict):
        if processor.get("type") == "Sequence" and isinstance(processor.get("processors"), list):
            for each in processor["processors"]:
                yield from _flat(each)
        else:
            yield processor
