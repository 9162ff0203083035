"""Training a lossless sentencepiece model, BPE or unigram, from counted words.

sentencepiece's trainers themselves cut their input into words before each run of spaces and count the distinct ones
(Kudo & Richardson 2018, github.com/google/sentencepiece). Doing so here (counting.py) gives the same merges, reads a
corpus shard by shard, and keeps in memory only the distinct words.

Losslessness: no space is folded or prefixed, unknown characters fall back to their bytes, and U+2581, which stands for
a space inside pieces, is escaped: text U+2581 becomes U+E000 'B', U+E000 becomes U+E000 'A', and decoding undoes it.

The scores of a unigram model are rounded to multiples of 1/64: sums of them are exact in 32-bit floats up to 2^18, and
in 64-bit floats always, so sentencepiece, tokenizers and any way to cut a text find the same path, ties included.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece

from gptcli.artifacts.durable import disk_errors
from gptcli.engines.model_proto import NORMAL, with_pieces, without_paths
from gptcli.errors import ResourceError, SpecError
from gptcli.tokenize.learning.counting import Counts, WordCounts, count_words
from gptcli.tokenize.learning.covering import character_counts, covering, cut_at_uncovered, with_characters
from gptcli.tokenize.learning.seeding import seed_pieces
from gptcli.tokenize.learning.user_tokens import check_user_tokens
from gptcli.tokenizer import TURN_END, TURN_START

ModelType = Literal["bpe", "unigram"]

CONTROL_PIECES = (TURN_START, TURN_END, *(f"<|spare_{number}|>" for number in range(16)))  # ids from 4
MOST_WORDS: dict[ModelType, int] = {"bpe": 4_000_000, "unigram": 500_000}  # about 2.5 GB; minutes
SCORE_STEP = 1 / 64

_THREADS = 4  # stored in the model, so it is fixed; what is learnt doesn't depend on it
_RULES = {
    "normalization_rule_tsv": "2581\tE000 42\nE000\tE000 41\n",
    "denormalization_rule_tsv": "E000 42\t2581\nE000 41\tE000\n",
}
_SPELLING = sorted(map(ord, {*"<unk><s></s><pad><0x0123456789ABCDEF>", *"".join(CONTROL_PIECES)}))
_SEEDS = "seed_sentencepieces_file"
_NEWLINES = str.maketrans("\n\v", "\v\n")  # a file of seeds has one a line: the two change places for the trainer
_UNREQUIRED = dict.fromkeys(map(ord, "\0\t\x1f \u2581\ue000"))  # no characters of the trainer's own text
_FLOAT_BITS = 20  # well below a 32-bit float's 24
_NEWLINE_BYTES = bytes.maketrans(b"\n\v", b"\v\n")


@dataclass(frozen=True)
class TrainingOptions:
    """What decides a model besides the words; the keys of TokenizeSpec. `max_words` 0: MOST_WORDS of the type."""

    vocab_size: int
    model_type: ModelType = "bpe"
    split_digits: bool = True
    split_by_script: bool = True
    max_piece_chars: int = 32
    character_coverage: float = 0.9995
    user_tokens: tuple[str, ...] = ()
    max_words: int = 0


@dataclass(frozen=True)
class Trained:
    """A serialized model and what it learnt from: documents and their bytes, words counted and how many distinct
    ones, those of them left out as the rarest, characters (distinct ones, those with a piece of their own, and what
    share of the text's characters these are)."""

    model: bytes
    documents: int
    document_bytes: int
    words: int
    distinct_words: int
    left_out_words: int
    left_out_distinct_words: int
    distinct_characters: int
    covered_characters: int
    character_coverage: float

    def figures(self) -> dict[str, int | float]:
        """All but the model, for an artifact's stats."""
        return {name: value for name, value in vars(self).items() if name != "model"}


def train_model(words: WordCounts, *, vocab_size: int, **options: Any) -> bytes:
    """The serialized model of `train`; the options are those of TrainingOptions."""
    return train(words, TrainingOptions(vocab_size, **options)).model


def train(words: WordCounts, options: TrainingOptions) -> Trained:
    """Train on counted words; the same bytes for the same counts and options.

    Ids: unk 0, bos 1, eos 2, pad 3, the chat markers 4 and 5, spare controls 6 to 21, the user tokens, 256 bytes,
    then pieces. Raises SpecError, naming what is feasible, when the text is too small or has too many characters for
    `vocab_size`; ValueError for words cut finer than the options' pieces may be.
    """
    if not len(words):
        raise SpecError(
            "the train split has no text to train a tokenizer on",
            "give the corpus more documents, or raise sample_bytes",
        )
    check_user_tokens(options.user_tokens)
    if options.user_tokens and options.model_type == "unigram":
        raise SpecError("a unigram model may prefer a path around user_tokens", "train model_type = bpe")
    too_fine = (words.rules.split_by_script and not options.split_by_script) or (
        words.rules.split_digits and not options.split_digits
    )
    if too_fine or not set(words.rules.user_tokens) <= set(options.user_tokens):
        raise ValueError(f"words cut by {words.rules} can't teach pieces of {options}")
    kept = words.most_frequent(options.max_words or MOST_WORDS[options.model_type])
    counts = character_counts(words)
    covered = covering(counts, options.character_coverage)
    model = _model(kept, options, np.where(covered, counts, 0))
    own = _own_characters(model)
    return Trained(
        model=model,
        documents=words.documents,
        document_bytes=words.document_bytes,
        words=words.total,
        distinct_words=len(words),
        left_out_words=words.total - kept.total,
        left_out_distinct_words=len(words) - len(kept),
        distinct_characters=int(np.count_nonzero(counts)),
        covered_characters=int(np.count_nonzero(counts[own])),
        character_coverage=round(float(counts[own].sum() / counts.sum()), 6),
    )


def _model(words: WordCounts, options: TrainingOptions, characters: Counts) -> bytes:
    """`characters`: how often each code point stands in the text that is to be a piece."""
    unigram = options.model_type == "unigram"
    if unigram:  # tokenizer.json's must have another way through a special token's spelling (hf_files.py)
        characters[_SPELLING] = np.maximum(characters[_SPELLING], 1)
    words = with_characters(cut_at_uncovered(words, characters > 0), characters)
    lines = (line.translate(_NEWLINE_BYTES) for line in words.lines()) if unigram else words.lines()
    model = io.BytesIO()
    with _files(words, options) as files:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines, model_writer=model, **(_settings(options) | files | _required(characters))
            )
        except RuntimeError as error:
            raise _explain(str(error), options) from error
    trained = without_paths(model.getvalue())
    return with_pieces(trained, _settled) if unigram else trained


def _settings(options: TrainingOptions) -> dict[str, Any]:
    return {
        "model_type": options.model_type,
        "input_format": "tsv",  # word TAB count
        "vocab_size": options.vocab_size,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": 3,
        "control_symbols": list(CONTROL_PIECES),
        "user_defined_symbols": list(options.user_tokens),
        "byte_fallback": True,
        "split_digits": options.split_digits,
        "split_by_unicode_script": options.split_by_script,
        "max_sentencepiece_length": options.max_piece_chars,
        "character_coverage": 1.0,  # of what is left of the words (covering.py)
        "allow_whitespace_only_pieces": True,
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "max_sentence_length": 1 << 30,  # longer inputs would be skipped in silence
        "num_threads": _THREADS,
        "minloglevel": 2,
    }


def _required(characters: Counts) -> dict[str, str]:
    """The setting that names the rare characters of a large text: the trainer adds up shares of characters as 32-bit
    floats, and leaves out what comes after their sum has been rounded to 1."""
    rare = np.flatnonzero((characters > 0) & (characters < characters.sum() >> _FLOAT_BITS))
    text = "".join(map(chr, rare.tolist())).translate(_UNREQUIRED)
    return {"required_chars": text.translate(_NEWLINES)} if text else {}


def _settled(text: str, score: float, kind: int) -> tuple[str, float]:
    """A unigram piece as it stands in the model: newlines back in their place, and its score rounded."""
    return text.translate(_NEWLINES), round(score / SCORE_STEP) * SCORE_STEP if kind == NORMAL else score


@contextmanager
def _files(words: WordCounts, options: TrainingOptions) -> Iterator[dict[str, str]]:
    """What the trainer reads from files, option → path: the escape's rules and a unigram model's seeds.
    ResourceError on a full disk."""
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
            if options.model_type == "unigram":
                paths[_SEEDS] = folder / "seeds.tsv"
                with paths[_SEEDS].open("w", encoding="utf-8", newline="\n") as file:
                    file.writelines(_seed_lines(words, options))
        yield {option: str(path) for option, path in paths.items()}


def _seed_lines(words: WordCounts, options: TrainingOptions) -> Iterator[str]:
    for piece, count in seed_pieces(words, options.max_piece_chars):
        text = piece.translate(_NEWLINES)
        if not any(character in text for character in "\n\u2581\ue000"):
            shown = text.replace(" ", "\u2581")
            yield f"{shown}\t{count}\n"


def _explain(message: str, options: TrainingOptions) -> SpecError:
    size = options.vocab_size
    most = re.search(r"too high .*<= (\d+)", message)
    if most:
        return SpecError(
            f"vocab_size = {size} is more than this text yields: the largest feasible is {most[1]}",
            f"gptcli tokenize --vocab-size {most[1]}, or a larger corpus",
        )
    least = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if least:
        return SpecError(
            f"vocab_size = {size} does not hold the text's own characters: the smallest feasible is {least[1]}",
            f"gptcli tokenize --vocab-size {least[1]}, or a lower character_coverage (the rest becomes bytes)",
        )
    return SpecError(f"sentencepiece cannot train on this text: {message}", "look at the corpus: gptcli corpus --show")


def _own_characters(model: bytes) -> list[int]:
    """The code points that are pieces."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = (processor.id_to_piece(index) for index in range(processor.vocab_size()))
    return [ord(" " if piece == "\u2581" else piece) for piece in pieces if len(piece) == 1]


__all__ = ["CONTROL_PIECES", "Trained", "TrainingOptions", "count_words", "train", "train_model"]
