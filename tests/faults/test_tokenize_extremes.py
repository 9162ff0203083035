"""Corpora that no web page holds: a line of a gigabyte, millions of documents of a word, nothing but spaces, nothing.

Each gives the right tokens, found by decoding, or an error that says what to do; and memory stays in proportion to the
longest document, not to what is made of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptcli import stage
from gptcli.artifacts.manifest import Manifest, read_manifest
from gptcli.artifacts.packing import PackingIndex
from gptcli.artifacts.shards import open_shard
from gptcli.errors import ArtifactError, SpecError
from gptcli.options import Shared
from gptcli.tokenize.encoding import chunks, encode, shard_encoder
from gptcli.tokenize.learning import counting
from gptcli.tokenize.learning.train import count_words, train_model
from gptcli.tokenizer import Tokenizer

PACKED = "packing=[{seq_len=1024}]"
KINDS = ("trained", "bpe", "unigram", "gpt2")
MB = 1 << 20
Texts = Callable[[int, int], list[str]]  # the texts numbered from a first one up to, and without, a last one


def one(text: Callable[[], str]) -> list[tuple[int, Texts]]:
    """A shard of one document."""
    return [(1, lambda first, last: [text()])]


def real_text(data_dir: Path, size: int, newlines: bool = False) -> str:
    """English novels, over and over."""
    books = [path.read_text(encoding="utf-8") for path in sorted((data_dir / "gutenberg-dev").glob("*[0-9].txt"))]
    text = "".join(books)
    text = text if newlines else text.replace("\r", "").replace("\n", " ")
    text = "".join(character for character in text if character < "\x80")
    return (text * (size // len(text) + 1))[:size]


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, list[str]]:
    """Kinds of tokenizers → the settings that ask for them."""
    words = count_words([pa.array([real_text(data_dir, 400_000, newlines=True)], pa.large_string())])
    folder = tmp_path_factory.mktemp("taken")
    for kind in ("bpe", "unigram"):
        (folder / kind).mkdir()
        (folder / kind / "tokenizer.model").write_bytes(train_model(words, vocab_size=1000, model_type=kind))
    return {
        "trained": ["vocab_size=400"],
        "bpe": [f"tokenizer={folder}/bpe"],
        "unigram": [f"tokenizer={folder}/unigram"],
        "gpt2": [f"tokenizer={data_dir}/gpt2-bpe-vocab"],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture(scope="module")
def novels(data_dir: Path) -> str:
    return real_text(data_dir, 3 * MB, newlines=True)


def some_text(novels: str) -> tuple[int, Texts]:
    """A shard that a tokenizer can be learnt from."""
    return 100, lambda first, last: [novels[number * 2000 : (number + 1) * 2000] for number in range(first, last)]


def tokenize(root: Path, settings: list[str]) -> Manifest:
    shared = Shared(project=root, settings=[*settings, "workers=1"], quiet=True)
    stage.execute("tokenize", shared, {})
    return read_manifest(root / "tokens" / "main", "tokens")


def comes_back(root: Path, shard: str, text_of: Callable[[int], str], *, rows: int = 100, most: int = 200_000) -> None:
    """Documents, some of them drawn, decode to their texts; long ones at both ends."""
    place = root / "tokens" / "main"
    tokenizer = Tokenizer.load(place / "tokenizer")
    reader = open_shard(place / shard)
    draw = random.Random(shard)
    numbers = [(batch, reader.get_batch(batch).num_rows) for batch in range(reader.num_record_batches)]
    first = 0
    chosen = set(draw.sample(range(len(numbers)), min(len(numbers), rows)))
    for batch, count in numbers:
        if batch in chosen:
            row = draw.randrange(count)
            ids, text = reader.get_batch(batch).column("tokens")[row].values, text_of(first + row)
            if len(ids) <= most:
                assert tokenizer.decode(ids.to_pylist()) == text
            else:
                begin, end = tokenizer.decode(ids[:most].to_pylist()), tokenizer.decode(ids[-most:].to_pylist())
                assert text.startswith(begin[:-8]) and text.endswith(end[8:]) and len(end) > most // 8
        first += count


CASES: dict[str, Callable[[str], tuple[int, Texts]]] = {
    "a line": lambda novels: (1, lambda first, last: [novels.replace("\r", "").replace("\n", " ")]),
    "words": lambda novels: (20_000, lambda first, last: novels.split()[first:last]),
    "spaces": lambda novels: (1, lambda first, last: [" " * 300_000]),
    "emoji": lambda novels: (1, lambda first, last: ["😀🎉🚀👍" * 20_000]),
    "empty texts": lambda novels: (3000, lambda first, last: [""] * (last - first)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_encoded_right(
    case: str, kind: str, root: Path, novels: str, taken: Any, write_texts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones, and what is bounded with bounds as small."""
    monkeypatch.setattr(chunks, "STRETCH_BYTES", MB // 2)
    monkeypatch.setattr(chunks, "BATCH_BYTES", MB // 8)
    monkeypatch.setattr(shard_encoder, "CHECKED_TOKENS", 5000)
    shard = CASES[case](novels)
    write_texts(root, {"train": [some_text(novels), shard]})
    stats = tokenize(root, [*taken[kind], PACKED]).stats
    comes_back(root, "train-00001.arrow", lambda number: shard[1](number, number + 1)[0], rows=20)
    assert stats["changed_documents"] == 0 and stats["splits"]["train"]["documents"] == 100 + shard[0]
    index = PackingIndex.open(root / "tokens" / "main", "train", "bestfit", 1024, 0)
    assert index.tokens == stats["splits"]["train"]["tokens"] and len(index) >= index.tokens // 1024


def test_a_long_document_is_counted_as_it_would_be_whole(novels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = pa.array([novels, "behind it"], pa.large_string())
    whole = count_words([text])
    monkeypatch.setattr(chunks, "STRETCH_BYTES", 100_000)
    monkeypatch.setattr(chunks, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(counting, "SLICE_BYTES", 1000)
    stretched = count_words([text])
    assert stretched.as_dict() == whole.as_dict() and stretched.documents == 2
    assert stretched.document_bytes == whole.document_bytes
    together = count_words([pa.array(["日本語" * 100_000], pa.large_string())])  # without a space
    assert sum(len(word) * count for word, count in together.as_dict().items()) == 300_000


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_split(
    kind: str, root: Path, novels: str, taken: Any, write_texts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "LONGEST_PART", 50_000)
    shard = (3, lambda first, last: ["short", "abcd" * 50_000, "short"][first:last])
    write_texts(root, {"train": [some_text(novels), shard]})
    if kind == "bpe":  # no piece of it holds "da": every fourth character is cut before
        tokenize(root, taken[kind])
        return
    with pytest.raises(ArtifactError, match=r"train-00001\.arrow: document 0{31}1 holds 200\.0 kB") as caught:
        tokenize(root, taken[kind])
    assert "gptcli corpus --set max_chars=" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [[], [(0, lambda first, last: [])], [(5, lambda first, last: [""] * 5)]])
def test_nothing_to_read(
    kind: str, shards: list[tuple[int, Texts]], root: Path, novels: str, taken: Any, write_texts: Any
) -> None:
    """No document to train on, though there may be some to validate with."""
    write_texts(root, {"train": shards, "val": [some_text(novels)] if len(shards) else []})
    if kind == "trained":
        with pytest.raises(SpecError, match="the train split has no text to train a tokenizer on"):
            tokenize(root, [*taken[kind], PACKED])
        return
    manifest = tokenize(root, [*taken[kind], PACKED])
    assert manifest.stats["splits"].get("val", {}).get("documents", 0) == (100 if len(shards) else 0)
    index = PackingIndex.open(root / "tokens" / "main", "train", "bestfit", 1024, 0)
    assert index.tokens == manifest.stats["splits"].get("train", {}).get("tokens", 0)


def flipped(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def halved(data: bytearray, draw: random.Random) -> None:
    del data[len(data) // 2 :]


@pytest.mark.parametrize("kind", ["trained", "bpe"])
@pytest.mark.parametrize("damage", [flipped, halved])
def test_a_damaged_corpus(
    damage: Callable[..., None], kind: str, root: Path, novels: str, taken: Any, write_texts: Any
) -> None:
    """Found, whichever bit it was: some leave a shard that can be read, with another text. Mended, it goes on."""
    write_texts(root, {"train": [some_text(novels), some_text(novels)]})
    path = root / "corpus" / "main" / "train-00001.arrow"
    whole, draw = path.read_bytes(), random.Random(f"{kind} {damage.__name__}")
    for _ in range(5):
        data = bytearray(whole)
        damage(data, draw)
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"train-00001\.arrow cannot be read"):
            tokenize(root, taken[kind])
    path.unlink()
    with pytest.raises(ArtifactError, match=r"train-00001\.arrow is missing"):
        tokenize(root, taken[kind])
    path.write_bytes(whole)
    assert tokenize(root, taken[kind]).stats["splits"]["train"]["documents"] == 200


@pytest.fixture(scope="module")
def line(data_dir: Path) -> str:
    """Of a gigabyte."""
    return real_text(data_dir, 1_000_000_000)


def run_in_a_process(root: Path, settings: list[str], gptcli: Any, most: int) -> dict[str, Any]:
    """The stats of a run of which no process had more than `most` bytes of memory, mapped files included."""
    words = [word for setting in [*settings, "workers=1"] for word in ("--set", setting)]
    figures: dict[str, Any] = gptcli(root, "tokenize", *words, "--json", expect=0).figures
    assert read_manifest(root / "tokens" / "main").records["peak_memory_bytes"] < most
    return figures


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["trained", "bpe", "gpt2"])
def test_a_line_of_a_gigabyte(kind: str, root: Path, line: str, novels: str, taken: Any, write_texts: Any, gptcli: Any):
    write_texts(root, {"train": [some_text(novels), (1, lambda first, last: [line])]})
    run_in_a_process(root, [*taken[kind], PACKED], gptcli, 6000 * MB)
    comes_back(root, "train-00001.arrow", lambda number: line)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_ten_million_documents(kind: str, root: Path, novels: str, taken: Any, write_texts: Any, gptcli: Any) -> None:
    words = novels.split()
    count = 10_000_000
    shard = (count, lambda first, last: [words[number % len(words)] for number in range(first, last)])
    write_texts(root, {"train": [some_text(novels), shard]})
    stats = run_in_a_process(root, [*taken[kind], PACKED], gptcli, 1500 * MB)
    comes_back(root, "train-00001.arrow", lambda number: words[number % len(words)], rows=1000)
    assert stats["splits"]["train"]["documents"] == count + 100


LONG = {"spaces": " " * 10_000_000, "emoji": "😀🎉🚀👍🌍" * 2_000_000, "a letter": "a" * 200_000_000}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", LONG)
def test_ten_million_of_a_kind(case, kind, root, novels, taken, write_texts, gptcli) -> None:
    write_texts(root, {"train": [some_text(novels), (1, lambda first, last: [LONG[case]])]})
    words = [word for setting in [*taken[kind], "workers=1"] for word in ("--set", setting)]
    done = gptcli(root, "tokenize", *words, "--json")
    if done.code == 0:
        comes_back(root, "train-00001.arrow", lambda number: LONG[case])
        peak = read_manifest(root / "tokens" / "main").records["peak_memory_bytes"]
        assert peak < 3000 * MB, json.dumps(done.figures)
    else:
        done.failed(3, "train-00001.arrow: document 0000", "without a place where this tokenizer's texts can be split")
        assert case != "spaces"
