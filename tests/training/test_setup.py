from __future__ import annotations

from typing import Any

import pytest
import torch

from gptcli.errors import SpecError
from gptcli.pretrain.spec import PretrainSpec
from gptcli.runtime.ranks import can_fork
from gptcli.training.setup import Setup

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system does not fork safely")


@pytest.fixture(autouse=True)
def threads() -> Any:
    """Eight cores, as far as torch says."""
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def settled(sequences: int = 16, compile: str = "auto", **settings: Any) -> Setup:
    spec = PretrainSpec(seq_len=256, global_batch_tokens=256 * sequences, **settings)
    return Setup.of(spec, "cpu", sequences, spec.ranks, compile)


def test_a_cpu_has_a_rank_a_core_and_each_one_thread() -> None:
    made = settled()
    assert (made.ranks, made.threads, torch.get_num_threads()) == (8, 1, 1)


def test_with_fewer_sequences_than_cores_ranks_have_one_thread_all_the_same() -> None:
    made = settled(sequences=4)
    assert (made.ranks, made.threads, made.micro_batch_size) == (4, 1, 1)


def test_threads_or_a_compiler_make_it_one_process() -> None:
    assert (settled(threads=3).ranks, settled(threads=3).threads) == (1, 3)
    torch.set_num_threads(8)
    compiled = settled(compile="on")
    assert (compiled.ranks, compiled.threads, compiled.compiled) == (1, 8, True)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"ranks": 2, "threads": 2}, "each of several ranks"),
        ({"ranks": 2, "compile": "on"}, "would compile for itself"),
    ],
    ids=["threads", "compile"],
)
def test_what_ranks_do_not_go_with_is_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        settled(**settings)


@pytest.mark.parametrize(("sequences", "ranks", "size"), [(16, 2, 8), (15, 2, 8), (64, 2, 8), (7, 3, 3)])
def test_micro_batches_share_a_step_evenly(sequences: int, ranks: int, size: int) -> None:
    assert settled(sequences=sequences, ranks=ranks).micro_batch_size == size


def test_a_run_goes_on_with_the_ranks_it_began_with() -> None:
    began = settled(ranks=2).facts()
    torch.set_num_threads(8)
    made = settled()
    remarks = made.take_up(began)
    assert made.ranks == 2 and any("goes on with 2 ranks" in remark for remark in remarks)
