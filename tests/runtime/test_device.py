from __future__ import annotations

import pytest

from gptcli.errors import SpecError
from gptcli.runtime.device import require_device_name, resolve_device


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:1"])
def test_names_of_devices(name: str) -> None:
    require_device_name(name)


@pytest.mark.parametrize("name", ["banana", "", "cuda:", "meta", "cpu\n"])
def test_what_is_no_device_is_refused_on_every_machine(name: str) -> None:
    with pytest.raises(SpecError, match="no such device"):
        resolve_device(name)
