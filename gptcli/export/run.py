"""Export: open, write, describe, reopen, compare, commit."""

from __future__ import annotations

from pathlib import Path

import torch

from gptcli.artifacts.build import Build
from gptcli.artifacts.durable import write_text
from gptcli.artifacts.manifest import Manifest
from gptcli.errors import ArtifactError
from gptcli.export.ancestors import ancestors, require_standing
from gptcli.export.card import model_card
from gptcli.export.formats import Format, format_named
from gptcli.export.source import Source
from gptcli.export.spec import KIND, ExportSpec
from gptcli.job import Job

EXACT = 1e-4  # largest difference of two float32 computations, per unit of the largest logit (at least 1)
ROUNDED = 0.1  # the same after weights were rounded to a narrower type; what was stored is compared bit by bit


def run(spec: ExportSpec, job: Job) -> Manifest:
    """Write exports/NAME. Raises ArtifactError when the export, reopened, doesn't compute what the model does."""
    source = Source.open(job.project, spec.model)
    job.stop.check()
    build = Build.open(job.place, kind=KIND, spec=spec.content(), inputs=job.inputs, say=job.progress.say)
    chosen = format_named(spec.to)
    figures = {"format": spec.to, **chosen.write(source, spec, build.directory)}
    job.stop.check()
    models = job.inputs.entries[: 1 + source.adapted]  # the model, and under an adapter its base
    line = ancestors(job.project, models)
    require_standing(line, job.inputs.entries, len(models))
    card = model_card(source, figures, line, chosen.usage(source, spec))
    write_text(build.directory / "README.md", card)
    rounded = getattr(torch, figures["dtype"]).itemsize < source.stored.itemsize
    figures |= compare(source, chosen, build.directory, card, ROUNDED if rounded else EXACT)
    job.stop.check()
    return build.commit(figures, job.records())


@torch.no_grad()
def compare(source: Source, chosen: Format, directory: Path, text: str, tolerance: float) -> dict[str, float | int]:
    """Largest logit difference between the model and its export on the token ids of `text`, in float32.

    Raises ArtifactError when it exceeds `tolerance` times the largest logit (at least 1).
    """
    reopened = chosen.reopen(directory)
    difference, largest, tokens = 0.0, 0.0, 0
    for row in source.texts(text):
        ids = torch.tensor([row])
        want, got = source.model(ids), reopened(ids)
        difference = max(difference, float((want - got).abs().max()))
        largest = max(largest, float(want.abs().max()))
        tokens += len(row)
    if not difference <= tolerance * max(1.0, largest):
        raise ArtifactError(
            f"the export doesn't compute what {source.ref.label} does: logits differ by {difference:.3g} "
            f"where they reach {largest:.3g}",
            "nothing was replaced; please report it",
        )
    return {"max_logit_difference": difference, "largest_logit": largest, "compared_tokens": tokens}
