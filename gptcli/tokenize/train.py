"""Training a lossless sentencepiece BPE model from counted words.

sentencepiece's BPE trainer itself cuts its input into words before each run of spaces and counts the distinct ones
(Kudo & Richardson 2018, github.com/google/sentencepiece). Doing so here, through Arrow, gives the same merges, reads a
corpus batch by batch, and keeps in memory only the distinct words.

Losslessness: no space is folded or prefixed, unknown characters fall back to their bytes, and U+2581, which stands for
a space inside pieces, is escaped: text U+2581 becomes U+E000 'B', U+E000 becomes U+E000 'A', and decoding undoes it.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from gptcli.artifacts.durable import disk_errors
from gptcli.engines.model_proto import without_paths
from gptcli.errors import ResourceError, SpecError
from gptcli.tokenize.chunks import Bytes, Cuts, chunk_codes, slices, text_bytes
from gptcli.tokenizer import TURN_END, TURN_START

CONTROL_PIECES = (TURN_START, TURN_END, *(f"<|spare_{number}|>" for number in range(16)))  # ids from 4

_NEVER_TRAINED = ("\t", "\0", "\u2585")  # the trainer takes the first for a boundary and skips inputs with the others
_MAX_WORD_BYTES = 16_384  # the trainer counts a word's symbols in 16 bits
_THREADS = 4  # stored in the model, so it is fixed; the merges don't depend on it
_RULES = {
    "normalization_rule_tsv": "2581\tE000 42\nE000\tE000 41\n",
    "denormalization_rule_tsv": "E000 42\t2581\nE000 41\tE000\n",
}


def count_words(batches: Iterable[Any], counts: dict[str, int] | None = None) -> dict[str, int]:
    """How often each word stands in the texts (large_string arrays); adds to `counts` when given.

    A word begins at each run of spaces and after each run of newlines. So no piece goes on after a newline, and a chat
    turn's header line has the same tokens whatever message follows. Tabs, NULs and U+2585 part words and are left out:
    they always are byte tokens.
    """
    counts = {} if counts is None else counts
    for batch in batches:
        for texts in slices(batch):
            data, offsets = text_bytes(texts)
            if not len(data):
                continue
            cuts = _word_cuts(data)
            cuts[offsets] = True
            _cut_long_words(data, cuts)
            codes, _ = chunk_codes(data, cuts)
            totals = np.bincount(codes.indices.to_numpy(), minlength=len(codes.dictionary))
            for word, total in zip(codes.dictionary.to_pylist(), totals.tolist(), strict=True):
                counts[word] = counts.get(word, 0) + total
    for character in ("", *_NEVER_TRAINED):
        counts.pop(character, None)
    return counts


def train_model(
    words: Mapping[str, int],
    *,
    vocab_size: int,
    split_digits: bool = True,
    split_by_script: bool = True,
    max_piece_chars: int = 32,
    character_coverage: float = 0.9995,
) -> bytes:
    """Train on counted words; returns the serialized model, the same bytes for the same counts and options.

    Ids: unk 0, bos 1, eos 2, pad 3, the chat markers 4 and 5, spare controls 6 to 21, bytes 22 to 277, then pieces.
    Raises SpecError, naming what is feasible, when the text is too small or has too many characters for `vocab_size`.
    """
    if not words:
        raise SpecError(
            "the train split has no text to train a tokenizer on",
            "give the corpus more documents, or raise sample_bytes",
        )
    options: dict[str, Any] = {
        "model_type": "bpe",
        "input_format": "tsv",  # word TAB count
        "vocab_size": vocab_size,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": 3,
        "control_symbols": list(CONTROL_PIECES),
        "byte_fallback": True,
        "split_digits": split_digits,
        "split_by_unicode_script": split_by_script,
        "max_sentencepiece_length": max_piece_chars,
        "character_coverage": character_coverage,
        "allow_whitespace_only_pieces": True,
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "max_sentence_length": 1 << 30,  # longer inputs would be skipped in silence
        "num_threads": _THREADS,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    lines = (f"{word}\t{words[word]}" for word in sorted(words))
    with _rule_files() as rules:
        try:
            sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **(options | rules))
        except RuntimeError as error:
            raise _explain(str(error), vocab_size) from error
    return without_paths(model.getvalue())


@contextmanager
def _rule_files() -> Iterator[dict[str, str]]:
    """The escape's rules in files, which the trainer reads: option → path. ResourceError on a full disk."""
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ResourceError(
            f"there is no folder for temporary files: {error.strerror}", "free some space, or set TMPDIR"
        ) from error
    with ExitStack() as stack:
        with disk_errors(place):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
            paths = {option: folder / f"{option}.tsv" for option in _RULES}
            for option, path in paths.items():
                path.write_text(_RULES[option], encoding="utf-8", newline="\n")
        yield {option: str(path) for option, path in paths.items()}


def _explain(message: str, vocab_size: int) -> SpecError:
    most = re.search(r"too high .*<= (\d+)", message)
    if most:
        return SpecError(
            f"vocab_size = {vocab_size} is more than this text yields: the largest feasible is {most[1]}",
            f"gptcli tokenize --vocab-size {most[1]}, or a larger corpus",
        )
    least = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if least:
        return SpecError(
            f"vocab_size = {vocab_size} does not hold the text's own characters: the smallest feasible is {least[1]}",
            f"gptcli tokenize --vocab-size {least[1]}, or a lower character_coverage (the rest becomes bytes)",
        )
    return SpecError(f"sentencepiece cannot train on this text: {message}", "look at the corpus: gptcli corpus --show")


def _word_cuts(data: Bytes) -> Cuts:
    """Where words begin: cuts[i] is before byte i; one longer than `data`."""
    cuts = np.zeros(len(data) + 1, np.bool_)
    is_space, is_newline = data == 0x20, data == 0x0A
    cuts[1:-1] = (is_space[1:] & ~is_space[:-1]) | (is_newline[:-1] & ~is_newline[1:])
    for character in _NEVER_TRAINED:
        pattern = np.frombuffer(character.encode(), np.uint8)
        starts = np.flatnonzero(data[: max(len(data) - len(pattern) + 1, 0)] == pattern[0])
        for place, byte in enumerate(pattern[1:], 1):
            starts = starts[data[starts + place] == byte]
        cuts[starts] = True
        cuts[starts + len(pattern)] = True
    return cuts


def _cut_long_words(data: Bytes, cuts: Cuts) -> None:
    bounds = np.flatnonzero(cuts)
    if len(bounds) == 0 or bounds[0] != 0:
        bounds = np.concatenate([[0], bounds])
    for index in np.flatnonzero(np.diff(bounds) > _MAX_WORD_BYTES):
        start, end = int(bounds[index]), int(bounds[index + 1])
        for place in range(start + _MAX_WORD_BYTES, end, _MAX_WORD_BYTES):
            while data[place] & 0xC0 == 0x80:  # not inside a character
                place -= 1
            cuts[place] = True
