from __future__ import annotations

import errno

import pytest
import torch

from gptcli.artifacts import durable
from gptcli.errors import ResourceError
from gptcli.models.weights import StoredTensor, read_tensors, write_streamed, write_tensors


def stored(tensors):
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_streamed_tensors_give_the_bytes_of_safetensors_own_writer(count, tmp_path):
    generator = torch.Generator().manual_seed(count)
    dtypes = [torch.float16, torch.float32, torch.bfloat16, torch.float64]
    tensors = {
        f"{'é' * (number % 2)}b.{count - number}": torch.randn(number, 3, generator=generator).to(dtypes[number % 4])
        for number in range(count)
    }
    written: list[int] = []
    write_streamed(tmp_path / "streamed", stored(tensors), written.append)
    write_tensors(tmp_path / "whole", tensors)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sum(written) == sum(tensor.nbytes for tensor in tensors.values())
    assert read_tensors(tmp_path / "streamed").keys() == tensors.keys()


def test_a_tensor_is_read_when_its_turn_has_come(tmp_path):
    alive: list[str] = []

    def read(name):
        alive.append(name)
        return torch.zeros(2)

    tensors = {name: StoredTensor((2,), torch.float32, lambda name=name: read(name)) for name in "ba"}
    write_streamed(tmp_path / "file", tensors, lambda _: alive.append("written"))
    assert alive == ["a", "written", "b", "written"]


def test_a_tensor_that_is_not_as_announced_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not as announced"):
        write_streamed(tmp_path / "file", {"a": StoredTensor((3,), torch.float32, lambda: torch.zeros(2))})
    assert not (tmp_path / "file").exists()


def test_a_full_disk_is_a_resource_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gptcli.models.weights.os.fsync", full)
    with pytest.raises(ResourceError, match="no space left"):
        write_streamed(tmp_path / "file", stored({"a": torch.zeros(2)}))
    assert durable.PENDING == ".tmp" and not (tmp_path / "file").exists()


def test_casting_reads_another_type_of_the_same_shape():
    tensor = stored({"a": torch.tensor([1.0, 1e-9])})["a"]
    half = tensor.cast(torch.bfloat16)
    assert (half.bytes, tensor.bytes, half.count) == (4, 8, 2)
    assert torch.equal(half.read(), tensor.read().bfloat16())
    assert tensor.cast(torch.float32) is tensor
