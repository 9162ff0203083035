from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from gptcli.errors import ResourceError, SpecError
from gptcli.runtime.ranks import Ranks, apart, can_fork, shared_tensor

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system does not fork safely")


def test_each_rank_writes_into_shared_memory_and_answers_in_order() -> None:
    shared = shared_tensor(3, torch.float32)

    def write(rank: int, value: float) -> int:
        shared[rank] = value + rank
        return rank

    ranks = Ranks(3, {"write": write})
    try:
        assert ranks.all("write", 5.0) == [0, 1, 2]
        assert shared.tolist() == [5.0, 6.0, 7.0]
    finally:
        ranks.close()


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_any_rank_comes_as_it_was_and_the_ranks_go_on(failing: int) -> None:
    def fail(rank: int) -> int:
        if rank == failing:
            raise SpecError("no such thing", "try another")
        return rank

    ranks = Ranks(2, {"fail": fail, "rank": lambda rank: rank})
    try:
        with pytest.raises(SpecError, match="no such thing") as raised:
            ranks.all("fail")
        assert raised.value.hint == "try another"
        assert ranks.all("rank") == [0, 1]
    finally:
        ranks.close()


def test_a_rank_that_dies_is_a_resource_error() -> None:
    ranks = Ranks(2, {"die": lambda rank: os.kill(os.getpid(), signal.SIGKILL) if rank else None})
    try:
        with pytest.raises(ResourceError, match="died"):
            ranks.all("die")
        with pytest.raises(ResourceError, match="died"):
            ranks.all("die")
    finally:
        ranks.close()


def test_what_is_to_be_done_meanwhile_is_done_while_others_work() -> None:
    flag = shared_tensor(1, torch.int64)

    def until_told(rank: int) -> int:
        deadline = time.monotonic() + 30
        while rank and not flag.item() and time.monotonic() < deadline:
            time.sleep(0.01)
        return int(flag.item())

    ranks = Ranks(2, {"wait": until_told}, lambda: flag.fill_(1))
    try:
        assert ranks.all("wait")[1] == 1
    finally:
        ranks.close()


def test_the_others_end_with_the_first() -> None:
    pids = shared_tensor(2, torch.int64)
    child = os.fork()
    if child == 0:
        ranks = Ranks(2, {"pid": lambda rank: pids[rank].fill_(os.getpid()) and None})
        ranks.all("pid")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert _ended(int(pids[1]))


def _ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_work_apart_answers_or_raises_what_it_raised() -> None:
    assert apart(lambda: 7) == 7

    def fail() -> None:
        raise SpecError("no such thing", "try another")

    with pytest.raises(SpecError, match="no such thing"):
        apart(fail)
    with pytest.raises(ResourceError, match="died"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_work_apart_may_have_ranks_of_its_own() -> None:
    def team() -> list[int]:
        ranks = Ranks(2, {"rank": lambda rank: rank})
        try:
            return ranks.all("rank")
        finally:
            ranks.close()

    assert apart(team) == [0, 1]
