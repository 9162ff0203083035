"""What a stage's run() is handed besides its spec."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptcli.artifacts.build import set_aside
from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.progress import Progress
from gptcli.runtime.device import peak_memory_bytes
from gptcli.runtime.stop import Stop


@dataclass(frozen=True)
class Job:
    """One run of one stage: where it stands, what it reads, and how it talks."""

    project: Project
    name: str
    place: Path  # where the artifact, or the run's container, stands at the end
    inputs: Inputs
    progress: Progress
    stop: Stop = field(default_factory=Stop)
    device: str = "auto"
    replaces: bool = False  # --force on a trained run: what stands at `place` is another run, kept under another name
    started: float = field(default_factory=time.monotonic)

    def begin_place(self) -> None:
        """Move a run that this one replaces aside; to be called once, when nothing but the work itself can fail."""
        if self.replaces and self.place.exists():
            set_aside(self.place)

    def records(self) -> dict[str, Any]:
        """How the stage was run; kept in the manifest outside its hash."""
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "seconds": round(time.monotonic() - self.started, 3),
            "peak_memory_bytes": peak_memory_bytes(),
        }
