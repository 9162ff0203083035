"""What a person sees of a run while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gptcli.console import human_bytes, human_count
from gptcli.job import Job
from gptcli.progress import Bar
from gptcli.runtime.device import peak_device_bytes, peak_memory_bytes
from gptcli.training.curve import smooth
from gptcli.training.metrics import Metrics
from gptcli.training.setup import Setup
from gptcli.training.throughput import peak_flops

SMOOTHED = 100  # rows that still count in the smoothed loss
FULL = 0.9  # share of a device's memory above which a warning is due


class Display:
    """The live bar of a run, and its rows of timings.jsonl: rates, memory, share of the peak.

    `expected(step, smoothed loss)` tells in words how the loss compares with a reference; "" where nothing does.
    """

    def __init__(
        self,
        job: Job,
        setup: Setup,
        metrics: Metrics,
        flops_per_token: float,
        bar: Bar,
        expected: Callable[[int, float], str] | None = None,
    ) -> None:
        self.bar, self._expected = bar, expected
        self._job, self._setup, self._metrics, self._flops = job, setup, metrics, flops_per_token
        self._warned = False
        self._tokens = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Begin a new window of the rate: what came before was no step."""
        self._tokens, self._since = 0, time.monotonic()

    def count(self, tokens: int) -> None:
        """A step over so many inputs is done."""
        self._tokens += tokens
        self.bar.advance()

    def measure(self, step: int, row: dict[str, Any]) -> None:
        """End the rate's window and show it beside the latest step's row of metrics.jsonl."""
        rate = self._tokens / max(time.monotonic() - self._since, 1e-9)
        peak, memory = peak_flops(self._setup.device), peak_device_bytes(self._setup.device)
        mfu = rate * self._flops / peak if peak else None
        held = f"{human_bytes(memory[0])} of {human_bytes(memory[1])}" if memory else human_bytes(peak_memory_bytes())
        self._metrics.time(
            step=step,
            tokens_per_second=round(rate, 1),
            peak_memory_bytes=memory[0] if memory else peak_memory_bytes(),
            **({} if mfu is None else {"mfu": round(mfu, 4)}),
        )
        losses = [each["train_loss"] for each in self._metrics.rows[-SMOOTHED:] if "train_loss" in each]
        if "train_loss" in row:
            smoothed = smooth(losses)[-1]
            told = self._expected(step, smoothed) if self._expected is not None else ""
            self.bar.show(
                loss=f"{row['train_loss']:.3f}",
                smoothed=f"{smoothed:.3f} ({told})" if told else f"{smoothed:.3f}",
                lr=f"{row['lr']:.2g}",
                norm=f"{row['grad_norm']:.2g}",
            )
        shown = "unknown" if mfu is None else f"{100 * mfu:.1f} %"
        self.bar.show(**{"tokens/s": human_count(rate), "MFU": shown, "memory": held})
        if memory and memory[0] > FULL * memory[1] and not self._warned:
            self._warned = True
            self.warn("the device's memory is over 90 % full; a smaller micro_batch_size helps")
        self.restart_clock()

    def validated(self, step: int, figures: dict[str, Any], seconds: float) -> None:
        """Tell a validation's figures."""
        self._metrics.time(step=step, validation_seconds=round(seconds, 3))
        if figures:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float))
            self.say(f"step {step}  {shown}")
            self.bar.show(val=f"{figures['val_loss']:.3f}")
        if figures.get("sample"):
            self.say(f"it writes  {figures['sample']!r}")
        self.restart_clock()

    def say(self, line: str) -> None:
        self._job.progress.say(f"{self._job.name}: {line}")

    def warn(self, line: str) -> None:
        self._job.progress.warn(f"{self._job.name}: {line}")
