from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from gptcli.errors import StoppedError
from gptcli.runtime.stop import Stop


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    installed = Stop()
    installed.install()
    yield installed
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_is_kept_until_what_is_under_way_is_saved(stop: Stop) -> None:
    signal.raise_signal(signal.SIGTERM)
    assert stop.requested
    with pytest.raises(StoppedError):
        stop.check()
    with pytest.raises(StoppedError), stop.at_once():
        pytest.fail("it came before the block")


def test_where_there_is_nothing_to_save_a_signal_ends_the_work_at_once(stop: Stop) -> None:
    with pytest.raises(StoppedError), stop.at_once():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the work went on")
    assert stop.requested


def test_a_second_interrupt_ends_everything(stop: Stop) -> None:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
