"""The loop with a trainee whose every loss is known: anomalies, signals, kills, memory and disk that run out."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptcli.artifacts.locations import step_directories
from gptcli.errors import DivergedError, ResourceError, StoppedError
from gptcli.training.batches import Batch
from gptcli.training.spec import TrainingSpec

SAMPLES = 4  # a step of the toy
STEPS = {"steps": 60, "save_every": 20, "val_every": 30, "lr": 0.02, "keep": 2, "seq_len": 8}
SPIKE, NAN = 1e4, math.nan


class Killed(BaseException):
    """Ends a training as abruptly as this process can."""


@pytest.fixture
def training(toy_training: Any) -> Callable[..., Any]:
    """A training of STEPS, with some keys otherwise, in a project of its own."""

    def make(root: Path, **values: Any) -> Any:
        return toy_training(root, TrainingSpec(**{**STEPS, **values}))

    return make


def plant(steps: dict[int, float], per_step: int = SAMPLES) -> Callable[[Any, Any], None]:
    """Let the first sample of these steps (from 1) have a loss so many times as large."""
    return lambda toy, job: toy.planted.update({(step - 1) * per_step: times for step, times in steps.items()})


def rows(run: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.place / "metrics.jsonl").read_text().splitlines()]


def bits(run: Any, snapshot: Any) -> dict[str, str]:
    return dict(snapshot(run.root, below="runs"))


def test_a_planted_nan_is_skipped_told_and_never_learnt(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a")
    toy = run.train(plant({7: NAN, 50: math.inf}))
    skipped = [row for row in rows(run) if "skipped" in row]
    assert [row["step"] for row in skipped] == [7, 50] and "nan" in skipped[0]["skipped"]
    assert all("train_loss" not in row and "lr" not in row for row in skipped)
    assert sum("step 7 is skipped" in line for line in run.heard.lines) == 1
    assert all(torch.isfinite(parameter).all() for parameter in toy.module.parameters())
    assert run.manifest.stats["step"] == 60 and run.manifest.stats["tokens"] == 58 * SAMPLES
    assert toy.seen == list(range(60 * SAMPLES))


def test_a_spike_is_skipped_as_if_it_had_not_been(training: Any, tmp_path: Path) -> None:
    """What it would have taught is in no weight: those of a run whose batch was not finite are the same."""
    spiked, broken = training(tmp_path / "a"), training(tmp_path / "b")
    one, two = spiked.train(plant({45: SPIKE})), broken.train(plant({45: NAN}))
    assert [row["step"] for row in rows(spiked) if "skipped" in row] == [45]
    assert "standard deviations above its smoothed" in next(r["skipped"] for r in rows(spiked) if "skipped" in r)
    assert torch.equal(one.module.weight, two.module.weight)
    learnt = training(tmp_path / "c", spike_threshold=0.0)
    assert not torch.equal(learnt.train(plant({45: SPIKE})).module.weight, one.module.weight)


def test_a_jump_for_good_does_not_stall_training(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a")
    run.train(plant(dict.fromkeys(range(40, 61), SPIKE)))
    assert [row["step"] for row in rows(run) if "skipped" in row] == [40, 41, 42, 43, 44]
    assert run.manifest.stats["step"] == 60


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_what_never_ends_being_broken_ends_with_6(training: Any, tmp_path: Path, policy: str) -> None:
    run = training(tmp_path / "a", on_anomaly=policy)
    with pytest.raises(DivergedError, match="the checkpoint at step 20 stands") as told:
        run.train(plant(dict.fromkeys(range(25, 400), NAN)))
    expected = (
        "10 of the last 100 steps were skipped"
        if policy == "skip"
        else "3 rollbacks to the checkpoint at step 20 did not help"
    )
    assert expected in told.value.message
    assert list(step_directories(run.place)) == [20]


def test_stop_ends_at_once_and_names_the_checkpoint(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a", on_anomaly="stop")
    with pytest.raises(DivergedError, match=r"at step 27 the loss is nan.*the checkpoint at step 20 stands"):
        run.train(plant({27: NAN}))
    assert rows(run)[-1]["step"] == 27 and "skipped" in rows(run)[-1]
    with pytest.raises(DivergedError):
        run.train(plant({27: NAN}))


def test_a_run_does_not_end_on_a_step_that_is_not_finite(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a")
    with pytest.raises(DivergedError, match="the run ends on a step whose loss is not finite, 60"):
        run.train(plant({60: NAN}))
    assert list(step_directories(run.place)) == [20, 40]


def test_rollback_leaves_out_all_data_since_the_checkpoint(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a", on_anomaly="rollback")
    toy = run.train(plant({47: NAN}))
    left_out = range(40 * SAMPLES, 47 * SAMPLES)
    assert toy.seen == [*range(47 * SAMPLES), *range(47 * SAMPLES, 67 * SAMPLES)]
    back = [row for row in rows(run) if "rolled_back_from" in row]
    assert back == [
        {
            "step": 41,
            "rolled_back_from": 47,
            "why": "the loss is nan and the gradient's norm nan",
            "skipped_samples": [left_out.start, left_out.stop],
            "sample": left_out.stop,
        }
    ]
    taken = [row for row in rows(run) if "train_loss" in row]
    assert [row["step"] for row in taken] == list(range(1, 61))
    assert all(("sample" in row) == (row["step"] > 40) for row in taken)
    assert [row["sample"] for row in taken[40:]] == list(range(left_out.stop, 67 * SAMPLES, SAMPLES))
    state = json.loads((run.place / "checkpoints/step-00000060/trainer/state.json").read_text())
    assert state["skipped_samples"] == [[left_out.start, left_out.stop]]


def test_a_second_rollback_to_the_same_checkpoint_leaves_out_more(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a", on_anomaly="rollback")
    run.train(plant({42: NAN, 43: NAN}))  # the second is the first step after the way back
    back = [row["skipped_samples"] for row in rows(run) if "rolled_back_from" in row]
    assert back == [[40 * SAMPLES, 42 * SAMPLES], [42 * SAMPLES, 46 * SAMPLES]]


def test_before_the_first_checkpoint_rollback_skips(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a", on_anomaly="rollback")
    run.train(plant({3: NAN}))
    assert [row["step"] for row in rows(run) if "skipped" in row] == [3]
    assert not any("rolled_back_from" in row for row in rows(run))


DISTURBED = {
    "undisturbed": {},
    "a skipped nan and spike": {7: NAN, 45: SPIKE},
    "rollbacks": {42: NAN, 43: NAN, 58: SPIKE},
}


@pytest.mark.parametrize("killed_in", [1, 21, 42, 44, 59, 66])
@pytest.mark.parametrize("planted", DISTURBED.values(), ids=DISTURBED)
def test_killed_and_resumed_is_never_killed(
    training: Any, tmp_path: Path, planted: dict[int, float], killed_in: int, snapshot: Any
) -> None:
    """In the so-many-th step computed, be it one that a rollback made again."""
    policy = "rollback" if 58 in planted else "skip"
    straight, killed = training(tmp_path / "a", on_anomaly=policy), training(tmp_path / "b", on_anomaly=policy)
    straight.train(plant(planted))
    count = 0

    def dies(batch: Batch) -> None:
        nonlocal count
        count += 1
        if count == killed_in:
            raise Killed

    try:
        killed.train(lambda toy, job: (plant(planted)(toy, job), setattr(toy, "before", dies)))
    except Killed:
        killed.train(plant(planted))
    assert bits(killed, snapshot) == bits(straight, snapshot)


@pytest.mark.parametrize("stopped_in", [1, 5, 43, 50])
@pytest.mark.parametrize("planted", DISTURBED.values(), ids=DISTURBED)
def test_stopped_in_a_step_is_done_again(
    training: Any, tmp_path: Path, planted: dict[int, float], stopped_in: int, snapshot: Any
) -> None:
    policy = "rollback" if 58 in planted else "skip"
    straight, stopped = training(tmp_path / "a", on_anomaly=policy), training(tmp_path / "b", on_anomaly=policy)
    straight.train(plant(planted))
    count = 0

    def prepare(toy: Any, job: Any) -> None:
        plant(planted)(toy, job)

        def asks(batch: Batch) -> None:
            nonlocal count
            count += 1
            if count == stopped_in:
                job.stop._receive(15, None)

        toy.before = asks

    with pytest.raises(StoppedError, match=r"stopped (before the first step|at step [0-9]+ of 60)"):
        stopped.train(prepare)
    assert (max(step_directories(stopped.place), default=0) == stopped_in - 1) or planted
    stopped.train(plant(planted))
    assert bits(stopped, snapshot) == bits(straight, snapshot)


def test_a_signal_in_a_validation_or_at_the_last_step(training: Any, tmp_path: Path, snapshot: Any) -> None:
    straight = training(tmp_path / "a")
    straight.train()
    for number, wanted in enumerate((30, 60)):
        run = training(tmp_path / f"b{number}")
        seen = 0

        def prepare(toy: Any, job: Any, wanted: int = wanted) -> None:
            def validating(check: Callable[[], None]) -> None:
                nonlocal seen
                seen += 30
                if seen == wanted:
                    job.stop.requested = True

            toy.validating = validating

        with pytest.raises(StoppedError, match=f"stopped at step {wanted} of 60, everything saved"):
            run.train(prepare)
        run.train()
        assert bits(run, snapshot) == bits(straight, snapshot)


def test_training_goes_on_while_a_checkpoint_is_written(training: Any, tmp_path: Path, snapshot: Any) -> None:
    straight, run = training(tmp_path / "a"), training(tmp_path / "b")
    straight.train()
    go_on, seen_while_writing = threading.Event(), []

    def prepare(toy: Any, job: Any) -> None:
        def writing(directory: Path) -> None:
            if directory.name == ".step-00000020.partial":
                assert go_on.wait(30)
                seen_while_writing.append(len(toy.seen))

        def before(batch: Batch) -> None:
            if len(toy.seen) == 35 * SAMPLES:
                assert not (run.place / "checkpoints/step-00000020").exists()
                go_on.set()

        toy.writing, toy.before = writing, before

    run.train(prepare)
    assert seen_while_writing[0] >= 35 * SAMPLES
    assert bits(run, snapshot) == bits(straight, snapshot)


def test_a_full_disk_behind_the_training_ends_it_with_4(training: Any, tmp_path: Path, snapshot: Any) -> None:
    straight, run = training(tmp_path / "a"), training(tmp_path / "b")
    straight.train()

    def full(directory: Path) -> None:
        if directory.name == ".step-00000040.partial":
            raise ResourceError(os.strerror(errno.ENOSPC), "free some space")

    with pytest.raises(ResourceError, match="No space left"):
        run.train(lambda toy, job: setattr(toy, "writing", full))
    assert list(step_directories(run.place)) == [20]
    run.train()
    assert bits(run, snapshot) == bits(straight, snapshot)


@pytest.mark.parametrize("error", [MemoryError("no"), RuntimeError("[enforce fail] can't allocate memory")], ids=str)
def test_out_of_memory_halves_the_micro_batch(training: Any, tmp_path: Path, error: Exception) -> None:
    run = training(tmp_path / "a", steps=3, save_every=1)

    def too_large(batch: Batch) -> None:
        if len(batch.input_ids) > 1:
            raise error

    run.train(lambda toy, job: setattr(toy, "before", too_large))
    state = json.loads((run.place / "checkpoints/step-00000003/trainer/state.json").read_text())
    assert state["setup"]["micro_batch_size"] == 1 and state["tokens"] == 3 * SAMPLES
    assert [line for line in run.heard.lines if "goes on with 1" in line]
    straight = training(tmp_path / "b", steps=3)
    straight.train()
    same = [[round(row["train_loss"], 4) for row in rows(each) if "train_loss" in row] for each in (run, straight)]
    assert same[0] == same[1]


def test_out_of_memory_with_one_sequence_ends_with_4(training: Any, tmp_path: Path) -> None:
    def never(batch: Batch) -> None:
        raise MemoryError

    with pytest.raises(ResourceError, match="one sequence at a time"):
        training(tmp_path / "a").train(lambda toy, job: setattr(toy, "before", never))


def test_every_so_many_steps_are_kept_for_good(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path / "a", keep_every=15, keep=1, save_every=10, val_every=0)
    run.train()
    assert list(step_directories(run.place)) == [15, 30, 45, 60]


def test_harmless_keys_change_on_the_way_and_are_told(training: Any, tmp_path: Path, snapshot: Any) -> None:
    straight, run = training(tmp_path / "a", save_every=5, keep=3), training(tmp_path / "b")
    straight.train()

    def dies(batch: Batch) -> None:
        if int(batch.input_ids[0, 0]) == 50 * SAMPLES:
            raise Killed

    with pytest.raises(Killed):
        run.train(lambda toy, job: setattr(toy, "before", dies))
    run.spec = straight.spec
    run.train()
    told = [line for line in run.heard.lines if "goes on with" in line]
    assert told == ["base: goes on with keep 3, was 2", "base: goes on with save_every 5, was 20"]
    started = json.loads((run.place / "spec.json").read_text())
    assert started["spec"] == json.loads(json.dumps(straight.spec.content()))
    assert started["changes"] == [
        {"step": 40, "key": "keep", "was": 2, "now": 3},
        {"step": 40, "key": "save_every", "was": 20, "now": 5},
    ]
    ours, theirs = bits(run, snapshot), bits(straight, snapshot)
    assert {name for name in ours if ours[name] != theirs.get(name)} == {
        "runs/base/spec.json",
        "runs/base/manifest.json",
    }


def test_metrics_do_not_know_the_time(
    training: Any, tmp_path: Path, snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps back and forth changes no byte outside timings.jsonl and the records."""
    straight, jumping = training(tmp_path / "a"), training(tmp_path / "b")
    straight.train()
    hours = iter(range(10**9))
    for name in ("time", "monotonic"):
        monkeypatch.setattr(f"time.{name}", lambda: (next(hours) * 7919 % 1000) * 3600.0)
    jumping.train()
    monkeypatch.undo()
    assert bits(jumping, snapshot) == bits(straight, snapshot)
