from __future__ import annotations

from gptcli.training.curve import HEIGHT, draw, smooth


def test_smoothing_starts_at_the_first_loss_and_follows() -> None:
    assert abs(smooth([3.0])[0] - 3.0) < 1e-12
    assert smooth([4.0] * 50)[-1] - 4.0 < 1e-9
    assert 1.0 < smooth([4.0] + [1.0] * 20)[-1] < 1.4


def test_the_curve_falls_as_the_loss_does() -> None:
    rows = [{"step": step, "train_loss": 5.0 - step / 50} for step in range(1, 101)]
    rows.append({"step": 100, "val_loss": 3.5})
    lines = draw(rows).splitlines()
    assert len(lines) == HEIGHT + 2
    first = [line.find("·") for line in lines[:HEIGHT] if "·" in line]
    assert first == sorted(first) and "o" in "".join(lines[:HEIGHT])
    assert lines[-1].split()[:3] == ["step", "1", "100"]


def test_nothing_to_draw() -> None:
    assert draw([]) == "" and draw([{"step": 0, "val_loss": 1.0}]) == ""
