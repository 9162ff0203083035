"""Held-out chats measured: the loss of the assistant's answers."""

from __future__ import annotations

from gptcli.eval.data import held_out_chats
from gptcli.eval.measurement import Measurement
from gptcli.eval.spec import held_out_share
from gptcli.scoring.chats import score_chats


def measure_chats(measurement: Measurement) -> None:
    """Score the held-out answers of the spec's chats. SpecError when none is held out."""
    spec, job = measurement.spec, measurement.job
    chats, left_out = held_out_chats(spec, job, measurement.tokenizer, measurement.seq_len)
    with job.progress.bar(f"chats {spec.model}", len(chats), "chats") as bar:
        score = score_chats(
            measurement.model,
            chats,
            batch_tokens=measurement.batch_size * measurement.seq_len,
            device=measurement.device,
            dtype=measurement.dtype,
            check=job.stop.check,
            advance=bar.advance,
        )
    measurement.require_finite(score)
    measurement.figures |= {
        "chat_loss": score.loss,
        "chat_perplexity": score.perplexity,
        "chat_accuracy": score.accuracy,
        "chat_top5_accuracy": score.top5_accuracy,
        "chat_tokens": score.tokens,
        "chats": len(chats),
        "chats_val_share": held_out_share(spec, job.project),
        "chats_left_out": left_out,
    }
