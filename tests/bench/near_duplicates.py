"""Near-duplicates planted among 50,000 real documents, one JSON line a step.

usage: python tests/bench/near_duplicates.py [DOCUMENTS]    (default 50000; data: GPTCLI_TEST_DATA)

Nine in ten documents are pieces of real text without overlap, of lengths as the web's are (log-normal); the others are
copies in which runs of words were replaced, for Jaccard similarities from .5 to 1. A pair is found when one document of
it is removed for the other, or both for a third. True similarities are computed a second way, from tuples of words.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptcli.corpus.dedup.join import band_bytes, band_reader, candidate_groups
from gptcli.corpus.dedup.minhash import BANDS, band_hashes
from gptcli.corpus.dedup.near_duplicates import NearDuplicates, find_near_duplicates
from gptcli.corpus.dedup.shingles import shingle_hashes

DATA = Path(os.environ.get("GPTCLI_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
SHARE = 0.1  # of copies
UNIT = 5000  # documents
TEXT_FILES = {
    "gutenberg-dev": "utf-8-sig",
    "multilingual-dev": "latin-1",
    "wikitext2-valid": "utf-8",
    "tinyshakespeare": "utf-8",
    "sentencepiece-model": "utf-8",
    "tinystories-sample": "utf-8",
}
ROW_FILES = (
    "c4-demo",
    "gsm8k-train",
    "dolly-hhrlhf-small",
    "gpteacher-roleplay",
    "dpo-en-demo",
    "glaive-toolcall-demo",
)
FIELDS = ("representative", "similarity", "cluster")
WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER")


def line(step: str, **figures: Any) -> None:
    print(json.dumps({"step": step, **figures}), flush=True)


def real_words() -> list[str]:
    """The words of all files, each paragraph once."""
    seen: dict[str, None] = {}
    for folder, encoding in TEXT_FILES.items():
        for path in sorted((DATA / folder).glob("*.txt")):
            if path.name not in ("ORIGIN.txt", "wagahaiwa_nekodearu.txt"):
                seen |= dict.fromkeys(path.read_text(encoding=encoding).split("\n\n"))
    for folder in ROW_FILES:
        for path in sorted((DATA / folder).glob("*.json*")):
            text = path.read_text(encoding="utf-8")
            rows = json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.splitlines())
            seen |= dict.fromkeys(string for row in rows for string in strings(row))
    return [word for paragraph in seen for word in paragraph.split()]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.split("### Instruction:")[-1]
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def make_documents(count: int) -> tuple[list[str], list[tuple[int, int]]]:
    """`count` texts in a drawn order, and which are (original, copy)."""
    draw, words = random.Random(1), real_words()
    originals = count - int(count * SHARE)
    shares = np.random.default_rng(1).lognormal(0, 1, originals)
    ends = np.concatenate([[0], np.cumsum(12 + np.floor(shares / shares.sum() * (len(words) - 12 * originals)))])
    texts = [words[int(begin) : int(end)] for begin, end in itertools.pairwise(ends)]
    long_enough = sorted(range(originals), key=lambda number: -len(texts[number]))[: 3 * (count - originals)]
    pairs = []
    for original in draw.sample(long_enough, count - originals):
        pairs.append((original, len(texts)))
        texts.append(copy_of(texts[original], draw.uniform(0.5, 1.0), words, draw))
    order = draw.sample(range(count), count)
    place = {number: at for at, number in enumerate(order)}
    return [" ".join(texts[number]) for number in order], [(place[a], place[b]) for a, b in pairs]


def copy_of(text: list[str], similarity: float, words: list[str], draw: random.Random) -> list[str]:
    """The text with as many words replaced, in one to four runs, as lead about to the similarity."""
    lost = (len(text) - 4) * (1 - similarity) / (1 + similarity)  # shingles of it that must go
    runs = min(draw.randint(1, 4), max(1, int(lost) // 5))
    out = list(text)
    for _ in range(runs):
        length = max(1, round(lost / runs) - 4)
        begin = draw.randrange(max(1, len(out) - length))
        out[begin : begin + length] = [draw.choice(words) for _ in range(min(length, len(out) - begin))]
    return out


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    """By the rule as it is written, a character at a time."""
    folded = []
    for char in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(char)
        if char == " " or kind == "Nd" or not (kind in ("Mn", "Me") or kind[0] in "PSC"):
            alone = not char.isascii() and unicodedata.name(char).startswith(WITHOUT_SPACES)
            folded.append("0" if kind == "Nd" else f" {char} " if alone else char)
    words = "".join(folded).split()
    return {tuple(words[begin : begin + 5]) for begin in range(max(1, len(words) - 4))}


def plain_jaccard(texts: list[str], a: int, b: int) -> float:
    left, right = plain_shingles(texts[a]), plain_shingles(texts[b])
    return len(left & right) / len(left | right)


@dataclass(frozen=True)
class Reader:
    """Texts of one file by their ends."""

    path: Path
    ends: np.ndarray[tuple[int], np.dtype[np.int64]]

    def __call__(self, documents: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[str]:
        with self.path.open("rb") as file:
            for number in documents.tolist():
                file.seek(int(self.ends[number]))
                yield file.read(int(self.ends[number + 1] - self.ends[number])).decode("utf-8")


def sign(texts: list[str], directory: Path) -> tuple[list[Path], list[int], np.ndarray[Any, Any]]:
    """Band files of units, documents of each, and shingles of every document."""
    paths, counts, sizes = [], [], []
    for begin in range(0, len(texts), UNIT):
        sets = [shingle_hashes(text) for text in texts[begin : begin + UNIT]]
        sizes += [len(one) for one in sets]
        paths.append(directory / f"{begin:08d}.bands")
        paths[-1].write_bytes(band_bytes(band_hashes(sets)))
        counts.append(len(sets))
    return paths, counts, np.array(sizes)


@contextmanager
def step(name: str, **told: Any) -> Iterator[dict[str, Any]]:
    """Time a step and how much memory this process takes for it at its peak (Linux), beside the texts it holds."""
    refs, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if refs.exists():
        refs.write_text("5")  # the peak is now what is resident
    before, started = resident(status, "VmRSS"), time.perf_counter()
    yield told
    seconds = time.perf_counter() - started
    line(name, seconds=round(seconds, 2), mb=round(resident(status, "VmHWM") - before, 1), **told)


def resident(status: Path, field: str) -> float:
    rows = status.read_text().splitlines() if status.exists() else []
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith(field)), 0.0)


def judge(found: NearDuplicates, texts: list[str], pairs: list[tuple[int, int]]) -> dict[str, Any]:
    gone = np.flatnonzero(found.removed).tolist()
    true = {number: plain_jaccard(texts, number, int(found.representative[number])) for number in gone}
    planted = [(a, b, plain_jaccard(texts, a, b)) for a, b in pairs]
    figures: dict[str, Any] = {
        "removed": len(gone),
        "near_what_stays": float(np.mean([s >= 0.8 for s in true.values()])),
    }
    figures["exact_similarity"] = all(found.similarity[number] == np.float32(s) for number, s in true.items())
    for low in (0.8, 0.85, 0.9):
        near = [
            bool(found.representative[a] == found.representative[b])
            for a, b, similarity in planted
            if similarity >= low
        ]
        figures[f"recall_{low}"], figures[f"pairs_{low}"] = round(float(np.mean(near)), 4), len(near)
    inside = {number for pair in pairs for number in pair}
    figures["removed_not_planted"] = sum(number not in inside for number in gone)
    return figures


def main(count: int) -> None:
    texts, pairs = make_documents(count)
    data = [text.encode() for text in texts]
    line("documents", documents=len(texts), bytes=sum(map(len, data)), words=sum(len(text.split()) for text in texts))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "texts"
        path.write_bytes(b"".join(data))
        lengths = np.array([len(one) for one in data])
        reader = Reader(path, np.concatenate([[0], np.cumsum(lengths)]))
        with step("sign"):
            paths, counts, sizes = sign(texts, Path(name))
        with step("join") as told:
            groups = candidate_groups(band_reader(paths, counts), BANDS, np.ones(count, dtype=bool))
            told |= {"groups": len(groups), "members": len(groups.members)}
        results = []
        for workers in (1, 2, 4):
            with step("decide", workers=workers) as told:
                results.append(find_near_duplicates(groups, lengths, sizes, reader, workers))
                told["work"] = vars(results[-1].work)
        found = results[0]
        same = [(getattr(found, name) == getattr(other, name)).all() for name in FIELDS for other in results]
        line("workers", same=bool(np.all(same)))
        line("judge", **judge(found, texts, pairs))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
