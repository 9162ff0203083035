from __future__ import annotations

import pytest
import torch

from gptcli.models.config import LlamaConfig
from gptcli.training.throughput import flops_per_token, measured_peak, peak_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_flops_leave_out_what_is_only_looked_up(tied: bool) -> None:
    config = LlamaConfig("llama", 100, 32, 64, 2, 2, 2, 16, 128, tie_word_embeddings=tied)
    tables = (1 if tied else 2) * 100 * 32
    products = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 100 * 32
    parameters = products - 100 * 32 + tables
    assert flops_per_token(config, parameters, 128) == 6 * products + 6 * 2 * 32 * 128


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA Unheard-Of 9", None),
    ],
)
def test_peaks_by_name(monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


def test_a_cpu_has_no_listed_peak() -> None:
    assert peak_flops(CPU) is None


def test_measured_peak_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    assert measured_peak(CPU, torch.float32, threads=before + 1) > 1e6
    assert torch.get_num_threads() == before
