"""A text or a split measured: the one rule's figures with their intervals, by source, and the rules beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError, SpecError
from gptcli.eval.baselines import baselines
from gptcli.eval.data import Documents, split_documents, split_texts, text_documents, text_stream
from gptcli.eval.measurement import Measurement
from gptcli.scoring.documents import (
    CORRECT,
    CORRECT_TOP5,
    NATS,
    TOKENS,
    DocumentSums,
    per_source,
    source_names,
    text_figures,
    text_intervals,
    word_perplexity,
)
from gptcli.scoring.text_scores import TextScores, Wanted, score_text, targets, usual_ranks


def measure_text(measurement: Measurement) -> None:
    """Score the texts, or the split, of the spec. SpecError where there is no token to predict."""
    spec, job = measurement.spec, measurement.job
    tokens = job.project.place("tokens", spec.tokens)
    if spec.text:
        documents = text_stream(spec, job, measurement.tokenizer)
    else:
        documents = split_documents(job.project, tokens, spec.split, spec.limit)
    stream = documents.stream
    started = time.monotonic()
    scores = _scores(measurement, stream)
    if not scores.score.tokens:
        scored = ", ".join(spec.text) or f"the {spec.split} split of tokens/{spec.tokens}"
        raise SpecError(
            f"there is no token to predict in {scored}: it is empty", "score a split or a text with content"
        )
    measurement.require_finite(scores.score)
    measurement.records["tokens_per_second"] = round(scores.score.tokens / max(time.monotonic() - started, 1e-9), 1)
    _tell(measurement, documents, scores)
    if spec.baselines:
        measurement.figures.update(_baselines(measurement, tokens, stream))


def _scores(measurement: Measurement, stream: TokenStream) -> TextScores:
    spec, tokenizer = measurement.spec, measurement.tokenizer
    wanted = Wanted(measurement.seq_len, spec.sliding, spec.per_document, calibration=True)
    with measurement.job.progress.bar(f"eval {spec.model}", targets(stream, wanted), "tokens") as bar:
        return score_text(
            measurement.model,
            stream,
            wanted,
            batch_size=measurement.batch_size,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            device=measurement.device,
            dtype=measurement.dtype,
            ranks=usual_ranks(measurement.device),
            check=measurement.job.stop.check,
            advance=bar.advance,
        )


def _tell(measurement: Measurement, documents: Documents, scores: TextScores) -> None:
    """All that a report says of the text."""
    stream, origins, sums = documents.stream, documents.origins, scores.documents.sums
    sizes = stream.document_bytes
    words = origins.words if origins is not None else None
    figures = measurement.figures
    figures.update(text_figures(scores.score, stream.text_bytes))
    if words is not None:
        figures["word_perplexity"] = word_perplexity(scores.score.nats, int(words.sum()))
        figures["words"] = int(words.sum())
    if scores.calibration is not None:
        figures.update(scores.calibration.figures())
        measurement.told["calibration"] = scores.calibration.tables()
    figures |= {"documents": stream.documents, "text_bytes": stream.text_bytes, "seq_len": measurement.seq_len}
    measurement.intervals.update(text_intervals(sums, sizes, words))
    for name, more in (("sliding", scores.sliding), ("per_document", scores.per_document)):
        if more is not None:
            _tell_more(measurement, name, more, sizes)
    if origins is not None:
        measurement.told["sources"] = per_source(sums, sizes, source_names(origins.paths))
    spec = measurement.spec
    measurement.told["scored"] = ", ".join(spec.text) or f"the {spec.split} split of tokens/{spec.tokens}"
    measurement.told["notes"] = list(documents.missing)
    measurement.documents = _columns(documents.ids, sums, sizes) | ({} if words is None else {"words": words})


def _tell_more(measurement: Measurement, name: str, sums: DocumentSums, sizes: Any) -> None:
    measurement.require_finite(sums.score)
    found = text_figures(sums.score, int(sizes.sum()))
    measurement.figures.update({f"{name}.{figure}": value for figure, value in found.items()})
    ends = text_intervals(sums.sums, sizes)
    measurement.intervals.update({f"{name}.{figure}": value for figure, value in ends.items()})


def _columns(ids: Sequence[str], sums: Any, sizes: Any) -> dict[str, Any]:
    counts = {"tokens": TOKENS, "correct": CORRECT, "correct_top5": CORRECT_TOP5}
    whole = {name: sums[row].astype(np.int64) for name, row in counts.items()}
    return {"document": list(ids), "nats": sums[NATS], **whole, "bytes": sizes}


def _baselines(measurement: Measurement, tokens: Path, stream: TokenStream) -> dict[str, float]:
    spec, job = measurement.spec, measurement.job
    texts: Iterable[str]
    if spec.text:
        texts = (text for _, text in text_documents(spec, job))
    else:
        texts = split_texts(job.project, tokens, spec.split, spec.limit)
    with job.progress.bar("gzip -9, xz -9e", stream.documents, "documents") as bar:
        figures, text_bytes = baselines(texts, check=job.stop.check, advance=bar.advance)
    if text_bytes != stream.text_bytes:
        raise ArtifactError(
            f"the documents hold {text_bytes} bytes of text where {job.project.relative(tokens)} says "
            f"{stream.text_bytes}",
            "gptcli checkpoint verify all names what is damaged",
        )
    return figures
