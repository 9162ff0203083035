"""How much arithmetic a token takes, and what share of a device's peak that is."""

from __future__ import annotations

import torch

from gptcli.models.config import LlamaConfig

# Dense bf16 products a second, from the makers' data sheets; a device not listed is unknown, not guessed.
_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def flops_per_token(config: LlamaConfig, parameters: int, seq_len: int) -> float:
    """Training FLOPs of one token: 6 a parameter that multiplies (the embedding look-up does not), and 6 · layers ·
    heads · head_dim · seq_len for causal attention (Chowdhery et al. 2022, appendix B, halved for the mask)."""
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    width = config.num_attention_heads * config.head_dim
    return 6 * (parameters - looked_up) + 6 * config.num_hidden_layers * width * seq_len


def peak_flops(device: torch.device) -> float | None:
    """A device's dense bf16 peak in FLOP/s; None where it isn't known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAKS.items() if known in name), None)
