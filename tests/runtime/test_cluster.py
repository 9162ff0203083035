"""Where no Ray cluster answers: said at once, and by the variable's name. No cluster is started here."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from gptcli.errors import ResourceError
from gptcli.runtime import cluster
from gptcli.runtime.cluster import ADDRESS, map_on_ray

ray = pytest.importorskip("ray")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_listens_there(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would try for minutes"))
    with socket.socket() as bound:  # and not listening: nobody else can take the port
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv(ADDRESS, address)
        with pytest.raises(ResourceError, match=rf"^no Ray cluster answers at {address}: .*refused") as caught:
            list(map_on_ray(abs, [-1], 1))
    assert caught.value.hint == "check RAY_ADDRESS, or unset it"


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "host:port"])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(ResourceError, match=f"no Ray cluster answers at {address}"):
        list(map_on_ray(abs, [-1], 1))


@pytest.mark.parametrize("error", [ConnectionError("x"), RuntimeError("x"), ray.exceptions.RpcError("x")])
def test_what_ray_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setenv(ADDRESS, "auto")
    with pytest.raises(ResourceError, match="no Ray cluster answers at auto: x"):
        list(map_on_ray(abs, [-1], 1))


@pytest.mark.parametrize("address", ["", "local"])
def test_a_cluster_that_nobody_named_is_not_joined(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setenv(ADDRESS, address)
    cluster._connect(SimpleNamespace(init=lambda **words: asked.update(words)), 3)
    assert asked["address"] == "local" and asked["num_cpus"] == 3


@pytest.mark.parametrize("address", ["{host}:{port}", "ray://{host}:{port}", "auto"])
def test_a_cluster_that_is_named_is_joined(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        named = address.format(host=host, port=port)
        monkeypatch.setenv(ADDRESS, named)
        cluster._connect(SimpleNamespace(init=lambda **words: asked.update(words), exceptions=ray.exceptions), 3)
    assert asked["address"] == named and "num_cpus" not in asked
