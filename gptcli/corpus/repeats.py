"""Paragraphs that an earlier document has: taken out of the texts as they are written."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from gptcli.corpus.catalogue import Catalogue, Ints
from gptcli.corpus.cleaning import REPEATED, text_hash
from gptcli.corpus.decisions import Decision
from gptcli.corpus.dedup.paragraphs import repeated, without
from gptcli.corpus.dedup.shingles import Hashes
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import paragraphs_path


class Repeats:
    """Which paragraphs of the kept documents stand in an earlier one of them; called, it takes them out of rows.

    Documents of which too little is left are left out of `decision`; the hashes and lengths in `catalogue` become those
    of the texts as they are written. Memory: one byte a paragraph.
    """

    def __init__(self, catalogue: Catalogue, decision: Decision, spec: CorpusSpec) -> None:
        self._catalogue, self._min_chars, self._fewest = catalogue, spec.repeated_paragraphs, spec.min_chars
        self._kept = decision.kept.copy()
        counts = np.where(self._kept, catalogue.paragraphs, 0)
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._mask = repeated(self._hashes)
        self.removed = int(self._mask.sum())
        self._settle(decision)

    def _hashes(self) -> Iterator[Hashes]:
        """Those of the kept documents, a unit at a time."""
        texts = self._catalogue.texts
        for number, key in enumerate(texts.keys):
            here = slice(int(texts.starts[number]), int(texts.starts[number + 1]))
            counts = self._catalogue.paragraphs[here]
            if counts.any():
                found = np.fromfile(paragraphs_path(texts.directory, key), dtype="<u8").astype(np.uint64, copy=False)
                yield found[np.repeat(self._kept[here], counts)]

    def _touched(self) -> Ints:
        """The documents that lose a paragraph."""
        lost = np.concatenate([[0], np.cumsum(self._mask, dtype=np.int64)])
        return np.flatnonzero(lost[self._starts[1:]] > lost[self._starts[:-1]])

    def _settle(self, decision: Decision) -> None:
        catalogue = self._catalogue
        numbers = self._touched()
        for number, text in zip(numbers.tolist(), catalogue.texts(numbers), strict=True):
            left = self.text(number, text)
            if left.strip() and len(left) >= self._fewest:
                data = left.encode()
                catalogue.bytes[number], catalogue.chars[number] = len(data), len(left)
                catalogue.hashes[number] = np.frombuffer(text_hash(data), dtype="<u8")
            else:
                decision.leave_out(np.array([number]), REPEATED)

    def text(self, number: int, text: str) -> str:
        """A document's text without the paragraphs that an earlier one has."""
        return without(text, self._mask[self._starts[number] : self._starts[number + 1]], self._min_chars)

    def __call__(self, begin: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A unit's rows, the first of them document `begin`, with texts and hashes as they are written."""
        end = begin + batch.num_rows
        here = self._mask[self._starts[begin] : self._starts[end]]
        if not here.any():
            return batch
        texts, hashes = batch.column("text").to_pylist(), batch.column("hash").to_pylist()
        for row in range(batch.num_rows):
            number = begin + row
            if self._mask[self._starts[number] : self._starts[number + 1]].any():
                texts[row] = self.text(number, texts[row].decode()).encode()
                hashes[row] = text_hash(texts[row])
        columns = {"text": pa.array(texts, pa.large_binary()), "hash": pa.array(hashes, pa.binary(16))}
        arrays = [columns.get(name, batch.column(name)) for name in batch.schema.names]
        return pa.record_batch(arrays, schema=batch.schema)
