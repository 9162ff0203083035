"""Which reader serves a model here."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch

from gptcli.inference.reader import ModuleReader, Reader
from gptcli.models.family import CausalLM


def open_reader(model: CausalLM, slots: int) -> Reader:
    """What reads `slots` sequences with this model: compiled loops on a CPU, elsewhere the model's own modules.

    Weights may change between two readers, not under one.
    """
    kinds = {parameter.dtype for parameter in model.parameters()}
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if on_cpu and kinds <= {torch.float32, torch.bfloat16} and _compiles():
        from gptcli.inference.native.packed import packs
        from gptcli.inference.native.reader import NativeReader

        return NativeReader(model, slots, packed=packs(model))
    return ModuleReader(model, slots)


def _compiles() -> bool:
    return sys.platform != "win32" and find_spec("numba") is not None
