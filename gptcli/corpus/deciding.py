"""The last pass, decided: scores judged, duplicates and near-duplicates found, splits and copies given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from gptcli.corpus import decisions
from gptcli.corpus.catalogue import Catalogue, Ints
from gptcli.corpus.cleaning import NEAR_DUPLICATE, judged
from gptcli.corpus.decisions import Decision
from gptcli.corpus.dedup.join import band_reader, candidate_groups
from gptcli.corpus.dedup.near_duplicates import find_near_duplicates
from gptcli.corpus.dedup.shingles import Hashes
from gptcli.corpus.dedup.stars import Limits
from gptcli.corpus.repeats import Repeats
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import bands_path
from gptcli.progress import Progress
from gptcli.runtime.executor import default_workers

_FEWEST_SHINGLES = 2  # shorter texts are duplicates when they are equal, and not otherwise
_OFTEN = 10_000  # documents between two looks at whether to stop
_MANY = 50_000  # documents; starting worker processes costs more than it saves below


def decide(
    spec: CorpusSpec, catalogue: Catalogue, progress: Progress, check: Callable[[], None] = lambda: None
) -> tuple[Decision, Repeats | None]:
    """What becomes of every document that came through cleaning, and which paragraphs are taken out of those kept.

    check: called often; it raises where the work is to stop.
    """
    decision = decisions.begin(catalogue)
    if spec.keep_scores:
        _judge(spec, catalogue, decision, check)
    if spec.dedup != "none":
        decisions.drop_duplicates(catalogue, decision)
    names = catalogue.hashes[:, 0]
    if spec.dedup == "near":
        names = _drop_near_duplicates(spec, catalogue, decision, progress, check)
    decision.splits[:] = decisions.split_of(names, spec.val_share, spec.test_share, spec.split_seed)
    decisions.give_copies(catalogue, decision, np.array([table.weight for table in spec.tables()]))
    check()
    if not spec.repeated_paragraphs:
        return decision, None
    repeats = Repeats(catalogue, decision, spec)
    if spec.dedup != "none":  # what is left of different texts may be the same
        decisions.drop_duplicates(catalogue, decision)
    return decision, repeats


def _judge(spec: CorpusSpec, catalogue: Catalogue, decision: Decision, check: Callable[[], None]) -> None:
    """Apply the thresholds of now to the scores kept in the units."""
    found: dict[str, list[int]] = {}
    for number, scores in catalogue.scores():
        reason, _ = judged(scores, spec)
        if reason:
            found.setdefault(reason, []).append(number)
        if number % _OFTEN == 0:
            check()
    for reason, numbers in found.items():
        decision.leave_out(np.array(numbers), reason)


def _drop_near_duplicates(
    spec: CorpusSpec, catalogue: Catalogue, decision: Decision, progress: Progress, check: Callable[[], None]
) -> Ints:
    """Leave out what is near a longer document that stays.

    Returns a 64-bit name of every document's cluster: of texts too short for near-duplicates, of their words.
    """
    texts = catalogue.texts
    paths = [bands_path(texts.directory, key) for key in texts.keys]
    read = band_reader(paths, np.diff(texts.starts).tolist())
    eligible = decision.kept & (catalogue.shingles >= _FEWEST_SHINGLES)

    def read_band(band: int) -> Iterable[Hashes]:
        check()
        return read(band)

    groups = candidate_groups(read_band, spec.near.bands, eligible)
    workers = (spec.workers or default_workers()) if len(groups.members) >= _MANY else 1
    limits = Limits(threshold=spec.near.threshold)
    with progress.bar("corpus: near-duplicates", len(np.unique(groups.members)), "documents") as bar:

        def between(documents: int) -> None:
            bar.advance(documents)
            check()

        found = find_near_duplicates(
            groups, catalogue.chars, catalogue.shingles, texts, workers, limits, between=between
        )
    decision.kept_id[found.removed] = found.representative[found.removed]
    decision.similarity[found.removed] = found.similarity[found.removed]
    decision.leave_out(found.removed, NEAR_DUPLICATE)
    if found.work.cut_documents:
        progress.warn(
            f"{found.work.cut_documents:,} documents share bands with so many others that up to "
            f"{found.work.cut_pairs:,} comparisons were left out; more near.rows make bands more selective"
        )
    names = decisions.smallest_in(found.cluster, catalogue.hashes[:, 0])
    short = (catalogue.shingles > 0) & (catalogue.shingles < _FEWEST_SHINGLES)
    names[short] = np.concatenate([np.empty(0, dtype=np.uint64), *read(0)])[short]
    return names
