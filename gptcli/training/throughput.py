"""How much arithmetic a token takes, and what share of a device's peak that is."""

from __future__ import annotations

import time

import torch

from gptcli.models.config import ModelConfig

# Dense bf16 products a second, from the makers' data sheets; a device not listed is unknown, not guessed.
_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}

PRODUCT_SIZES = {"cpu": (1024, 2048)}  # a matrix too small hides nothing, one too large leaves every cache
OTHER_SIZES = (4096, 8192)
PROBE_SECONDS = 0.3  # for each size


def flops_per_token(config: ModelConfig, parameters: int, seq_len: int) -> float:
    """Training FLOPs of one token: 6 a parameter that multiplies (the embedding look-up does not), and 6 · layers ·
    heads · head_dim · seq_len for causal attention (Chowdhery et al. 2022, appendix B, halved for the mask)."""
    width = config.num_attention_heads * config.head_dim
    return 6 * (parameters - config.lookup_parameters) + 6 * config.num_hidden_layers * width * seq_len


def peak_flops(device: torch.device) -> float | None:
    """A device's dense bf16 peak in FLOP/s; None where it isn't known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAKS.items() if known in name), None)


def measured_peak(device: torch.device, dtype: torch.dtype, threads: int = 0) -> float:
    """The best rate, FLOP/s, of a square matrix product in `dtype` on `device`, measured now.

    What a matrix product reaches at best is a better yardstick for a CPU than a data sheet. `threads`: CPU threads it
    runs on; 0: as many as torch uses now. Takes a second or two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return max(_product_rate(device, dtype, size) for size in PRODUCT_SIZES.get(device.type, OTHER_SIZES))
    finally:
        torch.set_num_threads(before)


def _product_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype, device=device)
    best, count, end = 0.0, 0, time.monotonic() + PROBE_SECONDS
    while count < 3 or time.monotonic() < end:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        out[0, 0].item()  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
        count += 1
    return best
