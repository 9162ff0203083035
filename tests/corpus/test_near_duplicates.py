"""Planted near-duplicates are found, what is removed is near what stays, and nothing hangs on how it was computed."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptcli.corpus.dedup.join import Groups, ReadBand, band_bytes, band_reader, candidate_groups, components
from gptcli.corpus.dedup.minhash import EMPTY, band_hashes
from gptcli.corpus.dedup.near_duplicates import NearDuplicates, find_near_duplicates, tasks_of
from gptcli.corpus.dedup.shingles import Hashes, shingle_hashes
from gptcli.corpus.dedup.stars import Limits
from gptcli.corpus.dedup.verify import ReadTexts, ShingleSets, jaccard

BANDS = 14


@dataclass(frozen=True)
class Texts:
    """A reader as a stage would give one; ascending numbers are part of what is promised to it."""

    texts: tuple[str, ...]

    def __call__(self, documents: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[str]:
        assert (np.diff(documents) > 0).all()
        return (self.texts[number] for number in documents)


def columns(hashes: Hashes) -> ReadBand:
    return lambda band: np.array_split(hashes[:, band], 3)


def groups_of(*sets: tuple[int, ...]) -> Groups:
    members = np.array([number for one in sets for number in one], dtype=np.int64)
    return Groups(np.cumsum([0, *map(len, sets)]), members)


def find(
    texts: list[str], groups: Groups | None = None, read: ReadTexts | None = None, **options: Any
) -> NearDuplicates:
    sets = [shingle_hashes(text) for text in texts]
    if groups is None:
        groups = candidate_groups(columns(band_hashes(sets)), BANDS, np.ones(len(texts), dtype=bool))
    lengths, sizes = np.array([len(text) for text in texts]), np.array([len(one) for one in sets])
    return find_near_duplicates(groups, lengths, sizes, read or Texts(tuple(texts)), **options)


def words(draw: random.Random, count: int) -> list[str]:
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(count)]


def changed(draw: random.Random, text: list[str], runs: int, length: int) -> list[str]:
    """The words with `runs` runs of `length` words replaced by new ones."""
    out = list(text)
    for _ in range(runs):
        begin = draw.randrange(len(out) - length)
        out[begin : begin + length] = words(draw, length)
    return out


# --- the join


@pytest.mark.parametrize("budget_bytes", [1 << 20, 3000, 1])
def test_groups_are_those_that_a_slow_search_finds(budget_bytes: int) -> None:
    draw = np.random.default_rng(11)
    hashes = draw.integers(0, 2**64, 40, dtype=np.uint64)[draw.integers(0, 40, (60, 3))]
    hashes[7] = hashes[8] = EMPTY
    hashes[30] = hashes[40] = (3, 5, 7)  # the same group in all bands
    eligible = (draw.random(60) < 0.8) | (np.arange(60) % 10 == 0)
    slow: dict[tuple[int, ...], None] = {}
    for band in range(3):
        by_hash: dict[int, list[int]] = {}
        for number in np.flatnonzero(eligible & (hashes[:, band] != EMPTY)).tolist():
            by_hash.setdefault(int(hashes[number, band]), []).append(number)
        slow |= dict.fromkeys(tuple(found) for found in sorted(by_hash.values()) if len(found) > 1)
    groups = candidate_groups(columns(hashes), 3, eligible, budget_bytes)
    found = [tuple(part.tolist()) for part in np.split(groups.members, groups.offsets[1:-1])]
    assert found == list(slow)
    assert len(groups) == len(slow) and found.count((30, 40)) == 1


def test_bands_are_read_from_the_units_files(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    units = [draw.integers(1, 2**64, (count, 4), dtype=np.uint64) for count in (5, 0, 3)]
    paths = [tmp_path / f"{number}.bands" for number in range(3)]
    for path, hashes in zip(paths, units, strict=True):
        path.write_bytes(band_bytes(hashes))
    read = band_reader(paths, [5, 0, 3])
    for band in range(4):
        assert np.concatenate(list(read(band))).tolist() == np.concatenate(units)[:, band].tolist()


def test_bands_of_other_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="3 band hashes for 4 documents"):
        candidate_groups(lambda band: [np.ones(3, dtype=np.uint64)], 1, np.ones(4, dtype=bool))


def test_components_are_those_of_a_slow_search() -> None:
    draw = random.Random(4)
    sets = [tuple(sorted(draw.sample(range(300), draw.randint(2, 4)))) for _ in range(110)]
    sets += [(number, number + 1) for number in range(300, 399)]  # a chain
    label = list(range(400))
    for _ in range(400):
        for one in sets:
            lowest = min(label[number] for number in one)
            for number in one:
                label[number] = lowest
    assert components(groups_of(*sets), 400).tolist() == label
    assert components(groups_of(), 3).tolist() == [0, 1, 2]


# --- stars


def test_the_longest_stays_and_a_chain_is_no_reason() -> None:
    """b is near a and c, which are not near each other: only one of them goes with b, and one cluster holds all."""
    draw = random.Random(1)
    middle = words(draw, 200)
    a = words(draw, 15) + middle[8:] + words(draw, 5)
    c = middle[:-8] + words(draw, 14)
    texts = [" ".join(middle), " ".join(c), " ".join(a), " ".join(words(draw, 50))]
    sets = [shingle_hashes(text) for text in texts]
    assert jaccard(sets[0], sets[1]) >= 0.8 and jaccard(sets[0], sets[2]) >= 0.8 > jaccard(sets[1], sets[2])
    found = find(texts, groups_of((0, 1, 2), (1, 3)))
    longest = max((1, 2), key=lambda number: len(texts[number]))
    assert found.representative.tolist() == [longest, 1, 2, 3]
    assert found.removed.tolist() == [True, False, False, False]
    assert found.similarity[0] == np.float32(jaccard(sets[0], sets[longest])) and not found.similarity[1:].any()
    assert found.cluster.tolist() == [0, 0, 0, 3]


def test_ties_go_to_the_lower_number_and_settled_documents_before_all() -> None:
    draw = random.Random(3)
    text = words(draw, 60)
    texts = [" ".join(text), " ".join(text) + " z", " ".join(text).upper()]
    assert find([texts[0], texts[2]]).representative.tolist() == [0, 0]
    assert find(texts).representative.tolist() == [1, 1, 1]
    settled = np.array([True, False, True])
    found = find(texts, settled=settled)
    assert found.representative.tolist() == [0, 0, 2]
    assert found.cluster.tolist() == [0, 0, 0]


def test_candidates_below_the_threshold_stay() -> None:
    draw = random.Random(6)
    text = words(draw, 200)
    texts = [" ".join(text), " ".join(changed(draw, text, 8, 1))]
    similarity = jaccard(*map(shingle_hashes, texts))
    assert 0.6 < similarity < 0.75
    assert not find(texts, groups_of((0, 1))).removed.any()
    assert find(texts, groups_of((0, 1)), limits=Limits(threshold=similarity)).removed.sum() == 1


def test_nothing_in_common_and_nothing_at_all() -> None:
    draw = random.Random(9)
    found = find([" ".join(words(draw, 40)) for _ in range(5)] + ["", "…", "one two"])
    assert found.representative.tolist() == found.cluster.tolist() == list(range(8))
    assert find([]).representative.tolist() == []


def test_a_giant_group_of_strangers_is_bounded_and_told() -> None:
    draw = random.Random(2)
    texts = [" ".join(words(draw, 12)) for _ in range(400)]
    texts[399] = texts[0] + " a"
    found = find(texts, groups_of(tuple(range(400)), (0, 399)), limits=Limits(patience=10))
    assert np.flatnonzero(found.removed).tolist() == [0]  # it shares two bands, so it was tried first
    assert found.work.cut_documents > 300 and found.work.cut_pairs > 10_000
    assert found.work.compared <= 400 * (2 * 32)
    patient = find(texts, groups_of(tuple(range(400)), (0, 399)), limits=Limits(patience=400))
    assert patient.work.cut_documents == patient.work.cut_pairs == 0
    assert patient.removed.tolist() == found.removed.tolist()


def test_a_slice_of_strangers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptcli.corpus.dedup.stars._SLICE", 50)
    draw = random.Random(2)
    found = find([" ".join(words(draw, 12)) for _ in range(200)], groups_of(tuple(range(200))))
    assert not found.removed.any()
    after = [199 - place for place in range(200)]
    assert found.work.compared <= sum(min(50, count) for count in after)
    assert found.work.cut_pairs == sum(max(0, count - 50) for count in after)
    assert found.work.cut_documents == 149


@pytest.mark.parametrize("family", ["AB" + 60 * "A" + 60 * "B", "A" + 40 * "xyA", "A" + 130 * "A"])
def test_copies_are_found_behind_slices_of_others(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters: documents in the order they are taken; those of a capital are copies, small ones strangers."""
    monkeypatch.setattr("gptcli.corpus.dedup.stars._SLICE", 50)
    draw = random.Random(2)
    originals = {letter: words(draw, 40) for letter in "AB"}
    texts = [" ".join(originals.get(letter) or words(draw, 40)) for letter in family]
    texts = [text.ljust(1000 - place) for place, text in enumerate(texts)]  # the longest first
    found = find(texts, groups_of(tuple(range(len(family)))))
    expected = [family.index(letter) if letter.isupper() else place for place, letter in enumerate(family)]
    assert found.representative.tolist() == expected


def test_a_giant_group_of_copies_leaves_one() -> None:
    draw = random.Random(8)
    text = words(draw, 30)
    texts = [" ".join([*text, *words(draw, 1)]) for _ in range(9000)]
    found = find(texts, groups_of(tuple(range(9000))))
    assert (~found.removed).sum() == 1 and found.work.cut_documents == 0
    assert found.work.compared == 8999
    assert not found.cluster.any()


def test_shingle_sets_are_held_within_their_budget() -> None:
    draw = random.Random(5)
    texts = [" ".join(words(draw, 104)) for _ in range(50)]
    reads = 0

    def read(documents: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[str]:
        nonlocal reads
        reads += len(documents)
        return Texts(tuple(texts))(documents)

    sets = ShingleSets(read, np.arange(50)[::-1].copy(), np.full(50, 100), budget_bytes=800 * 10)
    for places in ([3, 1, 2], [9, 1], [3], *([place] for place in range(20, 30)), [29, 3]):
        assert [one.tolist() for one in sets.get(places)] == [
            shingle_hashes(texts[49 - place]).tolist() for place in places
        ]
    assert reads == 3 + 1 + 10 + 1
    reads = 0
    whole = ShingleSets(read, np.arange(50), np.full(50, 100), budget_bytes=800 * 50)
    assert reads == 50 and len(whole.get([7, 7, 8])) == 3 and reads == 50


@pytest.mark.parametrize("seed", range(12))
def test_what_is_promised_of_every_candidate_pair(seed: int) -> None:
    """Families that drift word by word, so that near is not transitive, in groups that overlap at random."""
    draw = random.Random(seed)
    families = []
    for _ in range(6):
        families.append([words(draw, draw.randint(60, 140))])
        for _ in range(draw.randint(1, 9)):
            families[-1].append(changed(draw, draw.choice(families[-1]), 1, 1) + words(draw, draw.randint(0, 2)))
    texts = [" ".join(text) for family in families for text in family]
    draw.shuffle(texts)
    sets = [shingle_hashes(text) for text in texts]
    chosen = {tuple(sorted(draw.sample(range(len(texts)), draw.randint(2, 12)))) for _ in range(25)}
    settled = np.array([draw.random() < 0.1 for _ in texts])
    found = find(texts, groups_of(*sorted(chosen)), settled=settled)
    assert found.removed.any() and not found.removed[settled].any() and found.work.cut_pairs == 0
    for a, b in {pair for one in chosen for pair in itertools.combinations(one, 2)}:
        near = jaccard(sets[a], sets[b]) >= 0.8
        if not found.removed[a] and not found.removed[b]:
            assert not near or (settled[a] and settled[b])
        elif not (found.removed[a] and found.removed[b]):
            assert not near or found.cluster[a] == found.cluster[b]
    for number in np.flatnonzero(found.removed).tolist():
        kept = int(found.representative[number])
        assert not found.removed[kept] and found.cluster[kept] == found.cluster[number]
        assert (
            found.similarity[number] == np.float32(jaccard(sets[number], sets[kept]))
            and found.similarity[number] >= 0.8
        )
        assert settled[kept] or (len(texts[kept]), -kept) > (len(texts[number]), -number)
    assert (found.cluster <= np.arange(len(texts))).all()


# --- real text


def real_documents(data_dir: Path, count: int) -> list[list[str]]:
    """Words of novels, cut into documents of 40 to 400 words without overlap."""
    draw = random.Random(1)
    out: list[list[str]] = []
    for name in ("1342-0.txt", "2591-0.txt", "84-0.txt"):
        book = (data_dir / "gutenberg-dev" / name).read_text(encoding="utf-8-sig").split()
        while len(book) > 400 and len(out) < count:
            length = draw.randint(40, 400)
            out.append(book[:length])
            del book[:length]
    return out


Corpus = tuple[list[str], list[tuple[int, int, float]]]


@pytest.fixture
def corpus(data_dir: Path) -> Corpus:
    """1,000 documents and 200 changed copies of some of them; (original, copy, true Jaccard similarity)."""
    pytest.importorskip("rensa")
    return planted(data_dir)


@functools.cache
def planted(data_dir: Path) -> Corpus:
    draw = random.Random(7)
    documents = real_documents(data_dir, 1000)
    pairs = []
    for original in draw.sample([n for n, text in enumerate(documents) if len(text) > 80], 200):
        text = documents[original]
        pairs.append((original, len(documents)))
        documents.append(changed(draw, text, draw.randint(1, 3), draw.randint(1, max(1, len(text) // 40))))
    texts = [" ".join(text) for text in documents]
    return texts, [(a, b, jaccard(shingle_hashes(texts[a]), shingle_hashes(texts[b]))) for a, b in pairs]


def test_planted_near_duplicates_are_found(corpus: Corpus) -> None:
    texts, pairs = corpus
    found = find(texts)
    near = [(a, b) for a, b, similarity in pairs if similarity >= 0.85]
    assert len(near) > 100
    assert np.mean([found.representative[a] == found.representative[b] for a, b in near]) >= 0.95
    below = [(a, b) for a, b, similarity in pairs if similarity < 0.8]
    assert len(below) > 15 and not any(found.removed[a] or found.removed[b] for a, b in below)
    for number in np.flatnonzero(found.removed).tolist():
        kept = int(found.representative[number])
        assert not found.removed[kept]
        similarity = jaccard(shingle_hashes(texts[number]), shingle_hashes(texts[kept]))
        assert similarity >= 0.8 and found.similarity[number] == np.float32(similarity)
        assert found.cluster[number] == found.cluster[kept] <= min(number, kept)


def test_workers_do_not_change_what_is_removed(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptcli.corpus.dedup.near_duplicates._TASK_DOCUMENTS", 16)
    texts, _ = corpus
    read = partial(map, tuple(texts).__getitem__)  # workers need not know this module
    one, two = find(texts), find(texts, read=read, workers=2, limits=Limits(cache_bytes=1000))
    for name in ("representative", "similarity", "cluster"):
        assert (getattr(one, name) == getattr(two, name)).all()
    assert one.work == two.work


def test_tasks_are_whole_components(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptcli.corpus.dedup.near_duplicates._TASK_DOCUMENTS", 16)
    texts, _ = corpus
    sets = [shingle_hashes(text) for text in texts]
    groups = candidate_groups(columns(band_hashes(sets)), BANDS, np.ones(len(texts), dtype=bool))
    lengths, sizes = np.array([len(text) for text in texts]), np.array([len(one) for one in sets])
    tasks = list(tasks_of(groups, lengths, sizes, np.zeros(len(texts), dtype=bool)))
    label = components(groups, len(texts))
    of_tasks = [set(label[task.documents].tolist()) for task in tasks]
    assert len(tasks) > 5 and sum(len(one) for one in of_tasks) == len(set().union(*of_tasks))
    assert sorted(n for task in tasks for n in task.documents.tolist()) == np.unique(groups.members).tolist()
    assert sum(len(task.members) for task in tasks) == len(groups.members)
    for task in tasks:
        assert (np.diff(label[task.documents]) >= 0).all()
