"""`gptcli pretrain --profile N`: where a step's time goes, on a model that is thrown away."""

from __future__ import annotations

from typing import Any

from torch.profiler import record_function

from gptcli.artifacts.manifest import Inputs
from gptcli.artifacts.project import Project
from gptcli.console import Report, human_bytes, human_count, human_seconds
from gptcli.errors import SpecError
from gptcli.job import Job
from gptcli.pretrain.run import Pretraining
from gptcli.pretrain.spec import FOLDER, PretrainSpec, tokens_manifest
from gptcli.progress import Progress
from gptcli.runtime.device import peak_device_bytes, peak_memory_bytes
from gptcli.training.profile import WARM_UP, Profile, profile_steps
from gptcli.training.setup import Setup
from gptcli.training.step import Steps
from gptcli.training.throughput import measured_peak, peak_flops

FOLDER_OF_TRACES = "profiles"
MOST_STEPS = 1000  # an event is a line of the trace, and a step has thousands


def profile(spec: PretrainSpec, project: Project, name: str, steps: int, device: str, progress: Progress) -> Report:
    """Profile `steps` steps of what runs/NAME is or would be; nothing of a run is read or written.

    The trace, of the first process alone, goes to profiles/NAME.json.gz. Raises SpecError for a number of steps out of
    range, ArtifactError when there are no tokens, ResourceError when there is no such device.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise SpecError(f"--profile {steps}: from 1 to {MOST_STEPS} steps can be profiled", "for example --profile 10")
    tokens_manifest(spec.tokens, project)
    setup = Setup.of(spec, device, spec.sequences, spec.ranks, spec.compile)
    total = WARM_UP + 2 * steps
    job = Job(project, name, project.place(FOLDER, name), Inputs(), progress, device=device)
    trainee = Pretraining(spec, job, setup, project.place("tokens", spec.tokens))
    team = Steps(trainee, spec.with_steps(total), setup)
    team.phase = record_function
    trace = project.root / FOLDER_OF_TRACES / f"{name}.json.gz"
    try:
        with progress.bar(f"profiling {name}", total, "steps") as bar:

            def step(number: int) -> None:
                team.update(number, team.gradients(number, number * spec.sequences).grad_norm)
                bar.advance()

            found = profile_steps(step, steps, setup.device, trace)
    finally:
        team.close()
    return _report(found, project, name, spec, setup, trainee.flops_per_token)


def _report(
    found: Profile, project: Project, name: str, spec: PretrainSpec, setup: Setup, flops_per_token: float
) -> Report:
    rate = spec.global_batch_tokens / found.seconds
    dtype = str(setup.dtype).removeprefix("torch.")
    memory = peak_device_bytes(setup.device)
    figures: dict[str, Any] = {
        "steps": found.steps,
        "tokens_per_second": round(rate, 1),
        "seconds_per_step": round(found.seconds, 4),
        "profiled_seconds_per_step": round(found.profiled_seconds, 4),
        "flops_per_token": flops_per_token,
        "shares": {category: round(share, 4) for category, share in found.shares.items()},
        "others": [[label, round(share, 4)] for label, share in found.others],
        "setup": setup.facts(),
        "peak_memory_bytes": memory[0] if memory else peak_memory_bytes(),
        **_shares_of_peaks(rate * flops_per_token, setup),
    }
    speed = (
        f"{human_count(rate)} ({human_seconds(found.seconds)} a step, {human_seconds(found.profiled_seconds)} traced)"
    )
    parts = [(label, f"{100 * share:5.1f} %") for label, share in found.shares.items()]
    others = ", ".join(f"{label} {100 * share:.1f} %" for label, share in found.others)
    peaks = [
        (f"of the measured {_short(dtype)} matmul peak", _of(figures, "share_of_matmul_peak", "matmul_peak_flops"))
    ]
    if "mfu" in figures:
        peaks.append(("MFU, of the data sheet's bf16 peak", _of(figures, "mfu", "data_sheet_flops")))
    table = [
        ("tokens/s", speed),
        *peaks,
        ("computes in", f"{dtype} on {setup.device.type}, {setup.ranks} × {setup.threads} threads"),
        ("peak memory", human_bytes(figures["peak_memory_bytes"])),
        *parts,
        ("largest in other", others),
    ]
    return Report(
        f"pretrain {name}: {found.steps} steps of a model that is thrown away",
        project.relative(found.trace),
        {"stage": "pretrain", "name": name, **figures},
        table,
    )


def _shares_of_peaks(flops: float, setup: Setup) -> dict[str, float]:
    """What share of what a product reaches here, and of what the device's data sheet says where it is known."""
    peak, listed = measured_peak(setup.device, setup.dtype, setup.ranks * setup.threads), peak_flops(setup.device)
    shares = {"matmul_peak_flops": round(peak), "share_of_matmul_peak": round(flops / peak, 4)}
    return {**shares, "data_sheet_flops": listed, "mfu": round(flops / listed, 4)} if listed else shares


def _of(figures: dict[str, Any], share: str, peak: str) -> str:
    return f"{100 * figures[share]:.1f} % of {figures[peak] / 1e12:.3g} TFLOP/s"


def _short(dtype: str) -> str:
    return {"bfloat16": "bf16", "float32": "fp32"}.get(dtype, dtype)


__all__ = ["profile"]
