"""A tokenizer.json, read and made safe before the engine sees it: its pieces, and which of them no text may become.

Control pieces are the added tokens that are special, whatever a role names, and the chat markers. The engine is told
not to match them in texts; a text could still become one by merging or, where a model looks whole words up, by its
spelling. So merges that lead to a control piece are left out, and where a look-up could find it, the engine knows it by
another spelling. A single character of the alphabet is text, whatever a file calls it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from gptcli.engines.roles import ENDS, Roles
from gptcli.errors import ArtifactError

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
DISGUISE = "\U0010fffe"  # begins the spelling of a control piece inside the engine
MOST_IDS = 1 << 22  # four times the largest vocabulary known; beyond that a file is broken
MOST_BYTES = 1 << 29
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")  # two of these make one, if they stand together
_MODELS = ("BPE", "Unigram")
HINT = "fetch it again from its source, or save it anew with the package tokenizers"


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer.json holds.

    `pieces`: id → spelling, of the model and the added tokens; `of_model`: spelling → id of the model's own alone;
    `control`: ids that no text becomes; `plain_added`: added tokens that are matched in texts, as the file has them;
    `unk_id`: what the model makes of what it can't spell.
    """

    content: dict[str, Any]
    kind: str
    pieces: dict[int, str]
    of_model: dict[str, int]
    control: frozenset[int]
    plain_added: tuple[dict[str, Any], ...]
    unk_id: int | None

    @property
    def model(self) -> dict[str, Any]:
        model: dict[str, Any] = self.content["model"]
        return model

    @property
    def finds_words(self) -> bool:
        """Whether the model looks spellings up, so that a text may hit on a control piece's."""
        return self.kind == "Unigram" or self.model.get("ignore_merges") is True

    def without_lists(self) -> Vocabulary:
        """The same, without the model's own lists of pieces and merges."""
        model = {key: value for key, value in self.model.items() if key not in ("vocab", "merges")}
        return replace(self, content={**self.content, "model": model})


def parse(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object of a tokenizer.json; `name` is for messages. Raises ArtifactError where it is none, or where an
    object names a key twice."""
    if len(data) > MOST_BYTES:
        raise ArtifactError(f"{name}: {len(data):,} bytes are more than a tokenizer has", HINT)
    try:
        content = json.loads(data, object_pairs_hook=_once)
        if _HALF_CHARACTER.search(data):
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is no tokenizer: {error}", HINT) from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{name} holds no JSON object", HINT)
    return content


def read_vocabulary(content: dict[str, Any], name: str, roles: Roles) -> Vocabulary:
    """The vocabulary of a parsed tokenizer.json. Raises ArtifactError where it is not sound."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise ArtifactError(f"{name}: there is no model in it", HINT)
    kind = _kind(model)
    if kind not in _MODELS:
        raise ArtifactError(
            f"{name}: its model is {kind or 'of no known kind'}, which can't give text back as it was",
            f"models that can be taken are {' and '.join(_MODELS)}",
        )
    if kind == "BPE" and model.get("continuing_subword_prefix"):
        # The engine cuts the prefix off every merge's second half unseen, and dies where it isn't there.
        raise ArtifactError(
            f"{name}: its pieces within a word begin with {model['continuing_subword_prefix']!r}, so text can't be "
            "given back as it was",
            "take a byte-level or a sentencepiece-like tokenizer",
        )
    of_model = _model_pieces(model, kind, name)
    pieces = {token_id: piece for piece, token_id in of_model.items()}
    added = _added_tokens(content, name)
    for token in added:
        known = of_model.get(token["content"])
        token_id = token["id"]
        if (known is not None and known != token_id) or pieces.get(token_id, token["content"]) != token["content"]:
            raise ArtifactError(f"{name}: the added token {token['content']!r} can't have the id {token_id}", HINT)
        pieces[token_id] = token["content"]
    if not pieces:
        raise ArtifactError(f"{name}: the vocabulary is empty", HINT)
    control = _control(model, of_model, added, roles)
    return Vocabulary(
        content=content,
        kind=kind,
        pieces=pieces,
        of_model=of_model,
        control=control,
        plain_added=tuple(token for token in added if not token["special"] and token["id"] not in control),
        unk_id=_unknown(model, kind, of_model, name),
    )


def for_engine(vocabulary: Vocabulary, disguise: int) -> str:
    """The tokenizer.json that the engine opens: no text leads to a control piece, unless it holds the spelling that
    number `disguise` gives it. Nothing is random, nothing is cut, padded or put around a text."""
    content, model = dict(vocabulary.content), dict(vocabulary.model)
    hidden = {vocabulary.pieces[token_id] for token_id in vocabulary.control}
    names: dict[str, str] = {}
    if vocabulary.finds_words:
        names = {
            piece: f"{DISGUISE}{disguise}\U0010ffff {vocabulary.of_model[piece]}"
            for piece in hidden
            if piece in vocabulary.of_model
        }
    if vocabulary.kind == "BPE":
        if names:
            model |= {"vocab": {names.get(piece, piece): number for piece, number in vocabulary.of_model.items()}}
        model |= {"merges": _merges_apart_from(model.get("merges"), hidden, set(names)), "dropout": None}
        model |= {"unk_token": names.get(model.get("unk_token") or "", model.get("unk_token"))}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    added = [
        {
            **token,
            "content": names.get(token["content"], token["content"]),
            "special": token["special"] or token["id"] in vocabulary.control,
        }
        for token in content.get("added_tokens") or []
    ]
    content |= {"model": model, "added_tokens": added, "truncation": None, "padding": None, "post_processor": None}
    return json.dumps(content, ensure_ascii=False)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} stands in it twice")
    return found


def _kind(model: dict[str, Any]) -> str:
    """Files of early releases don't name their model's type."""
    kind = model.get("type")
    if kind is None:
        kind = "BPE" if "merges" in model else "Unigram" if isinstance(model.get("vocab"), list) else ""
    return str(kind)


def _model_pieces(model: dict[str, Any], kind: str, name: str) -> dict[str, int]:
    vocab = model.get("vocab")
    if kind == "Unigram":
        if not isinstance(vocab, list) or not all(_is_scored(row) for row in vocab):
            raise ArtifactError(f"{name}: the vocabulary is no list of pieces with their scores", HINT)
        vocab = {row[0]: number for number, row in enumerate(vocab)}
        if len(vocab) != len(model["vocab"]):
            raise ArtifactError(f"{name}: a piece stands twice in the vocabulary", HINT)
    if not isinstance(vocab, dict) or not all(_is_id(number) for number in vocab.values()):
        raise ArtifactError(f"{name}: the vocabulary does not give every piece an id below {MOST_IDS:,}", HINT)
    if len(set(vocab.values())) != len(vocab):
        raise ArtifactError(f"{name}: two pieces of the vocabulary have the same id", HINT)
    return vocab


def _is_scored(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], int | float)


def _is_id(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MOST_IDS


def _added_tokens(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = content.get("added_tokens") or []
    sound = isinstance(rows, list) and all(
        isinstance(row, dict)
        and isinstance(row.get("content"), str)
        and _is_id(row.get("id"))
        and isinstance(row.get("special"), bool)
        for row in rows
    )
    if not sound:
        raise ArtifactError(f"{name}: added_tokens is no list of tokens with id, content and special", HINT)
    if len({row["id"] for row in rows}) != len(rows) or len({row["content"] for row in rows}) != len(rows):
        raise ArtifactError(f"{name}: an added token stands in it twice", HINT)
    return list(rows)


def _control(
    model: dict[str, Any], of_model: dict[str, int], added: list[dict[str, Any]], roles: Roles
) -> frozenset[int]:
    """What is named as special, and what must be meant so: a marker or the like that no text leads to."""
    ids = {**of_model, **{token["content"]: token["id"] for token in added}}
    by_id = {number: piece for piece, number in ids.items()}
    named = {token["content"] for token in added if token["special"]} | roles.names
    meant = {TURN_START, TURN_END}
    for role, numbers in roles.ids.items():
        if role.removesuffix("_id") not in roles.tokens:
            meant |= {by_id[number] for number in numbers if number in by_id}
    if "eos_token" not in roles.tokens:
        meant |= {spelling for row in ENDS for spelling in row}
    merged = set(_results(model.get("merges"))) if meant & of_model.keys() else set()
    named |= meant & ids.keys() - merged | meant & {token["content"] for token in added}
    return frozenset(ids[piece] for piece in named if piece in ids and not (len(piece) == 1 and piece in of_model))


def _unknown(model: dict[str, Any], kind: str, of_model: dict[str, int], name: str) -> int | None:
    if kind == "Unigram":
        number = model.get("unk_id")
        return number if isinstance(number, int) and number < len(of_model) else None
    token = model.get("unk_token")
    if token is None:
        return None
    if token not in of_model:
        raise ArtifactError(f"{name}: the unknown token {token!r} is not in the vocabulary", HINT)
    return of_model[token]


def _merges_apart_from(merges: Any, hidden: set[str], renamed: set[str]) -> Any:
    """The merges that lead to none of `hidden` and name none of `renamed`; what only they lead to is then out of reach
    as well."""
    results = _results(merges)
    if hidden.isdisjoint(results):
        return merges
    parts = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    return [
        merge
        for merge, result, pair in zip(merges, results, parts, strict=True)
        if result not in hidden and renamed.isdisjoint(pair)
    ]


def _results(merges: Any) -> list[str]:
    """What each merge leads to; [] where they are no merges, of which the engine says what is wrong."""
    try:
        return [merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge) for merge in merges or []]
    except TypeError:
        return []
