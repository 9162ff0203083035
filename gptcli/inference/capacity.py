"""How many sequences are continued at once."""

from __future__ import annotations

from pathlib import Path

import torch

from gptcli.models.family import CausalLM

MOST_ON_A_CPU = 16  # beyond, a step's time grows with its rows
MOST_ELSEWHERE = 64
SHARE = 0.5  # of the free memory, for keys and values: they are copied when a longer table is made


def choose_batch_size(model: CausalLM, length: int) -> int:
    """Rows whose keys and values, for `length` tokens each, take at most half of what memory is free; at least 1."""
    config, parameter = model.config, next(model.parameters())
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * parameter.element_size()
    device = parameter.device
    most = MOST_ON_A_CPU if device.type == "cpu" else MOST_ELSEWHERE
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()
    return most if free is None else max(1, min(most, int(free * SHARE) // (token * length)))


def available_bytes() -> int | None:
    """What Linux says a program may still take; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
