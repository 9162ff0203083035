from __future__ import annotations

import numpy as np
import pytest
import torch

from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError
from gptcli.training.batches import TokenBatches, sample_index
from gptcli.training.loss import IGNORED


def stream(count: int) -> TokenStream:
    pieces = tuple(np.array_split(np.arange(count, dtype=np.uint16), 7))
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    return TokenStream(pieces, starts, text_bytes=count, documents=7)


def test_the_stream_reads_across_pieces() -> None:
    whole = stream(100)
    assert whole.read(0, 100).tolist() == list(range(100))
    assert whole.read(13, 47).tolist() == list(range(13, 47))
    assert whole.read(95, 120).tolist() == list(range(95, 100))


def test_an_epoch_shows_every_target_once_and_the_next_in_another_order() -> None:
    data = TokenBatches(stream(1 + 32 * 8), seq_len=8, sequences=4, bos_id=None, seed=3)
    epochs = []
    for epoch in range(2):
        rows = [batch.targets for step in range(8) for batch in data.step(epoch * 8 + step, 3)]
        epochs.append(torch.cat(rows).flatten().tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(1, 257))
    assert epochs[0] != epochs[1]


def test_inputs_and_targets_overlap_by_one_and_bos_carries_no_loss() -> None:
    data = TokenBatches(stream(65), seq_len=8, sequences=8, bos_id=9, seed=0)
    (batch,) = data.step(0, 8)
    kept = batch.targets != IGNORED
    assert torch.equal(batch.input_ids[kept] + 1, batch.targets[kept])
    assert batch.valid == 63 and not (batch.targets == 9).any()


def test_micro_batches_hold_the_same_samples() -> None:
    data = TokenBatches(stream(1000), seq_len=10, sequences=6, bos_id=None, seed=1)
    one = torch.cat([batch.input_ids for batch in data.step(5, 6)])
    many = torch.cat([batch.input_ids for batch in data.step(5, 4)])
    assert torch.equal(one, many)


def test_the_order_depends_on_the_seed() -> None:
    assert [sample_index(0, n, 50) for n in range(50)] != [sample_index(1, n, 50) for n in range(50)]


def test_too_little_text_is_an_error() -> None:
    with pytest.raises(ArtifactError, match="fewer than one sequence"):
        TokenBatches(stream(8), seq_len=8, sequences=1, bos_id=None, seed=0)
