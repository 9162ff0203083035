from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gptcli.artifacts.versions import highest_version, is_version, next_version, require_version, version_order
from gptcli.checkpoint.weights import not_finite, parameters, read_header
from gptcli.errors import ArtifactError, SpecError

# Semantic Versioning 2.0.0, §11's own example, and numbers that don't sort as text.
ASCENDING = [
    "0.9.10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.2.0",
    "1.10.0",
    "10.0.0",
]


def test_versions_are_ordered_by_precedence() -> None:
    assert sorted(random.Random(0).sample(ASCENDING, len(ASCENDING)), key=version_order) == ASCENDING


@pytest.mark.parametrize(
    ("versions", "highest"),
    [
        (["1.9.0", "1.10.0", "2.0.0-rc.1"], "1.10.0"),
        (["1.0.0-a", "1.0.0-b"], "1.0.0-b"),
        (["x", ".1.0.0.partial"], None),
    ],
)
def test_a_release_is_higher_than_any_prerelease(versions: list[str], highest: str | None) -> None:
    assert highest_version(versions) == highest


@pytest.mark.parametrize(
    "text", ["1.0.0-01", "1.0.0-a.00", "1.0.٣", "१.0.0", "1.0.0-", "1.0.0+", "1.0.0-a..b", "01.0.0"]
)
def test_what_is_no_semantic_version(text: str) -> None:
    assert not is_version(text)
    with pytest.raises(SpecError, match="is no semantic version"):
        require_version(text)


def test_what_is_one_however_odd() -> None:
    assert all(map(is_version, ["1.0.0-0", "1.0.0-0a.1", "1.0.0-01a", "1.0.0--", "1.0.0+001", "0.0.0-0.0+0"]))
    with pytest.raises(SpecError, match="too long for a version"):
        require_version("1.0.0-" + "a" * 195)
    require_version("1.0.0-" + "a" * 194)
    assert version_order("9" * 5000 + ".0.0")[0] == -1


def test_builds_alone_are_no_tie() -> None:
    versions = ["1.0.0+a", "1.0.0", "1.0.0+b"]
    assert highest_version(versions) == highest_version(versions[::-1]) == "1.0.0+b"
    assert next_version([*versions, "1.1.0-rc.1"], "minor") == "1.1.0"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_not_finite_is_found_without_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    good = {"a": torch.tensor([0.0, -largest, largest, torch.finfo(dtype).tiny], dtype=dtype), "n": torch.arange(3)}
    bad = {name: torch.full((5,), value, dtype=dtype) for name, value in (("inf", -torch.inf), ("nan", torch.nan))}
    path = tmp_path / "model.safetensors"
    save_file(good | bad, path)
    assert sorted(not_finite(path)) == ["inf", "nan"]
    save_file(good, path)
    assert not_finite(path) == []
    assert sum(parameters(tmp_path).values()) == 7


@pytest.mark.parametrize("cut", [0, 4, 8, 40, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(10)}, path)
    assert [(tensor.name, tensor.shape) for tensor in read_header(path)] == [("a", (10,))]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match="no readable safetensors file"):
        read_header(path)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for seed in range(50):
        path.write_bytes(np.random.default_rng(seed).bytes(seed * 5))
        with pytest.raises(ArtifactError):
            read_header(path)
