"""The last pass, decided: scores judged, duplicates and near-duplicates found, splits and copies given."""

from __future__ import annotations

import numpy as np

from gptcli.corpus import decisions
from gptcli.corpus.catalogue import Catalogue, Ints
from gptcli.corpus.cleaning import NEAR_DUPLICATE, judged, shown
from gptcli.corpus.decisions import Decision
from gptcli.corpus.dedup.join import band_reader, candidate_groups
from gptcli.corpus.dedup.near_duplicates import find_near_duplicates
from gptcli.corpus.dedup.stars import Limits
from gptcli.corpus.repeats import Repeats
from gptcli.corpus.spec import CorpusSpec
from gptcli.corpus.units import bands_path
from gptcli.progress import Progress
from gptcli.runtime.executor import default_workers

_FEWEST_SHINGLES = 2  # shorter texts are duplicates when they are equal, and not otherwise
_MANY = 50_000  # documents; starting worker processes costs more than it saves below


def decide(spec: CorpusSpec, catalogue: Catalogue, progress: Progress) -> tuple[Decision, Repeats | None]:
    """What becomes of every document that came through cleaning, and which paragraphs are taken out of those kept."""
    decision = decisions.begin(catalogue)
    if spec.keep_scores:
        _judge(spec, catalogue, decision)
    if spec.dedup != "none":
        decisions.drop_duplicates(catalogue, decision)
    clusters = _drop_near_duplicates(spec, catalogue, decision, progress) if spec.dedup == "near" else None
    weights = np.array([table.weight for table in spec.tables()])
    decisions.place(catalogue, decision, clusters, spec, weights)
    repeats = Repeats(catalogue, decision, spec.repeated_paragraphs) if spec.repeated_paragraphs else None
    return decision, repeats


def _judge(spec: CorpusSpec, catalogue: Catalogue, decision: Decision) -> None:
    """Apply the thresholds of now to the scores kept in the units."""
    for number, scores in catalogue.scores():
        reason, value = judged(scores, spec)
        if reason:
            decision.leave_out(np.array([number]), reason)
            decision.values[number] = shown(value)


def _drop_near_duplicates(spec: CorpusSpec, catalogue: Catalogue, decision: Decision, progress: Progress) -> Ints:
    """Leave out what is near a longer document that stays; returns the cluster of every document."""
    texts = catalogue.texts
    paths = [bands_path(texts.directory, key) for key in texts.keys]
    read_band = band_reader(paths, np.diff(texts.starts).tolist())
    eligible = decision.kept & (catalogue.shingles >= _FEWEST_SHINGLES)
    groups = candidate_groups(read_band, spec.near.bands, eligible)
    workers = (spec.workers or default_workers()) if len(groups.members) >= _MANY else 1
    found = find_near_duplicates(
        groups, catalogue.chars, catalogue.shingles, texts, workers, Limits(threshold=spec.near.threshold)
    )
    decision.kept_id[found.removed] = found.representative[found.removed]
    decision.similarity[found.removed] = found.similarity[found.removed]
    decision.leave_out(found.removed, NEAR_DUPLICATE)
    if found.work.cut_documents:
        progress.warn(
            f"{found.work.cut_documents:,} documents share bands with so many others that up to "
            f"{found.work.cut_pairs:,} comparisons were left out; more near.rows make bands more selective"
        )
    return found.cluster
