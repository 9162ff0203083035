from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gptcli.artifacts.ngrams import NgramIndex
from gptcli.artifacts.schemas import CORPUS_SCHEMA
from gptcli.artifacts.shards import ShardWriter
from gptcli.corpus.ngrams import write_ngrams
from gptcli.scoring import contamination
from gptcli.scoring.contamination import Overlap, figures_by_group, item_text, overlaps

WORDS = [f"word{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(200)]
KNOWN = " ".join(WORDS[:40])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> NgramIndex:
    place = tmp_path_factory.mktemp("corpus")
    row = {"id": "0" * 32, "text": KNOWN, "path": "a.txt", "source_offset": 0, "source_bytes": len(KNOWN)}
    writer = ShardWriter(place / "train-00000.arrow", CORPUS_SCHEMA)
    writer.write(pa.Table.from_pylist([row], schema=CORPUS_SCHEMA))
    writer.close()
    (place / "ngrams").mkdir()
    write_ngrams(place / "train-00000.arrow", place / "ngrams" / "train-00000.arrow")
    return NgramIndex.open(place / "ngrams", "train")


TEXTS = [
    item_text(" ".join(WORDS[3:14]), " ".join(WORDS[14:16])),  # 13 words of the corpus, only together with the answer
    " ".join(WORDS[100:130]),
    " ".join(WORDS[:12]),  # one word too few
    "",
    " ".join([*WORDS[100:110], *(word.upper() + "!" for word in WORDS[20:34])]),  # two 13-grams, written otherwise
    " ".join(WORDS[150:163]),
]


def states(overlap: Overlap) -> list[str]:
    rows = zip(overlap.dirty, overlap.clean, overlap.untold, strict=True)
    return ["dirty" if dirty else "clean" if clean else "untold" for dirty, clean, _ in rows]


def test_items_are_dirty_clean_or_too_short_to_tell(index: NgramIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    found = overlaps(TEXTS, [index])
    assert states(found) == ["dirty", "clean", "untold", "untold", "dirty", "clean"]
    assert found.found.tolist() == [1, 0, 0, 0, 2, 0] and found.grams.tolist() == [1, 18, 0, 0, 12, 1]
    monkeypatch.setattr(contamination, "_CHARS", 50)  # hashed in several parts
    assert np.array_equal(overlaps(TEXTS, [index]).found, found.found)
    assert states(overlaps(TEXTS, [])) == ["clean" if state == "dirty" else state for state in states(found)]
    assert states(overlaps([], [index])) == []


def test_figures_of_clean_and_dirty_items(index: NgramIndex) -> None:
    found = figures_by_group(overlaps(TEXTS, [index]), {"acc": [1, 0, 1, 1, 0, 1], "acc_norm": [1, 1, 0, 0, 1, 0]})
    assert found == {
        "acc_clean": 0.5,
        "acc_dirty": 0.5,
        "acc_norm_clean": 0.5,
        "acc_norm_dirty": 1.0,
        "clean": 2,
        "dirty": 2,
        "untold": 2,
    }
    assert figures_by_group(overlaps(TEXTS[2:3], [index]), {"acc": [1]}) == {"clean": 0, "dirty": 0, "untold": 1}


def test_the_look_up_reads_a_memory_map(index: NgramIndex, tmp_path: Path) -> None:
    assert all(not run.flags.owndata for run in index._runs)
    assert len(index) == 28
