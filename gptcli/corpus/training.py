"""The quality filter's classifier, trained before the cleaning on the user's files and a sample of the sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from gptcli.artifacts.durable import write_bytes
from gptcli.corpus.filters import Filter, QualityFilter
from gptcli.corpus.plan import read_options
from gptcli.corpus.spec import CorpusSpec, SourceTable
from gptcli.errors import SpecError
from gptcli.records.documents import read
from gptcli.records.pieces import Notes, ReadOptions
from gptcli.records.sources import SourceFile

_FILES = 256  # of the sources, evenly spread, of which the beginning is taken for the sample
_DOCUMENTS = 200  # of each


@dataclass
class Trained:
    """What was trained: one entry of figures a quality filter, and a hash of all their weights."""

    stats: list[dict[str, Any]] = field(default_factory=list)
    sha256: str = ""


def with_weights(
    spec: CorpusSpec, tables: Sequence[SourceTable], files: Sequence[SourceFile], directory: Path
) -> tuple[CorpusSpec, Trained]:
    """The spec with every quality filter's weights trained and put down in `directory`.

    spec: its files as absolute paths. Raises SpecError where there are too few documents to train on.
    """
    trained = Trained()
    if not any(isinstance(one, QualityFilter) for one in spec.steps()):
        return spec, trained

    def one(found: Filter) -> Filter:
        return _trained(found, spec, tables, files, directory, trained) if isinstance(found, QualityFilter) else found

    filters = [one(found) for found in spec.filters]
    return spec.model_copy(update={"filters": filters, "quality": spec.quality and one(spec.quality)}), trained


def _trained(
    one: QualityFilter,
    spec: CorpusSpec,
    tables: Sequence[SourceTable],
    files: Sequence[SourceFile],
    directory: Path,
    trained: Trained,
) -> QualityFilter:
    from gptcli.corpus.filters.logistic import train

    options = ReadOptions(text_key=spec.text_key, separator=spec.separator)
    unlike = _texts(Path(one.unlike), options) if one.unlike else _sample(tables, files, spec)
    try:
        weights = train(_texts(Path(one.like), options), unlike, seed=spec.split_seed)
    except SpecError as error:
        named = " and ".join(filter(None, [one.like, one.unlike]))
        raise SpecError(f"{error.message} ({named})", f"rows need the column {spec.text_key}; {error.hint}") from error
    data = weights.to_bytes()
    path = directory / f"weights.{len(trained.stats)}.npy"
    write_bytes(path, data)
    trained.sha256 = hashlib.sha256(trained.sha256.encode() + data).hexdigest()
    trained.stats.append(dict(weights.stats))
    return one.model_copy(update={"weights": str(path)})


def _texts(path: Path, options: ReadOptions) -> Iterator[str]:
    return (piece.text for piece in read(path, path.name, options, Notes()) if piece.text)


def _sample(tables: Sequence[SourceTable], files: Sequence[SourceFile], spec: CorpusSpec) -> Iterable[str]:
    """The first documents of some of the sources' files."""
    options = {table.name: read_options(table, spec.max_chars) for table in tables}
    step = max(1, len(files) // _FILES)
    for file in files[::step]:
        pieces = read(file.path, file.name, options[file.source], Notes())
        yield from islice((piece.text for piece in pieces if piece.text), _DOCUMENTS)
