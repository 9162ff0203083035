from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from gptcli.console import Report, human_bytes, human_count, human_seconds, print_columns, print_report
from gptcli.progress import Progress, Silent


def test_json_is_one_object_and_the_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("eval base: done", "evals/base", {"loss": 2.5}, [("loss", "2.5"), ("bits per byte", "1.2")])
    print_report(report, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"title": "eval base: done", "path": "evals/base", "loss": 2.5}
    print_report(report, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["eval base: done", "  loss           2.5", "  bits per byte  1.2", "  → evals/base"]


def test_columns_align(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns(("run", "step"), [("base", "100"), ("a-long-name", "2")])
    assert capsys.readouterr().out.splitlines() == [
        "run          step",
        "───────────  ────",
        "base         100",
        "a-long-name  2",
    ]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (human_bytes(999), "999 B"),
        (human_bytes(12_345_678), "12.3 MB"),
        (human_count(5_123_456), "5.12M"),
        (human_count(12), "12"),
        (human_seconds(7.26), "7.3 s"),
        (human_seconds(192.4), "3:12"),
        (human_seconds(7384), "2:03:04"),
    ],
)
def test_figures_for_people(got: str, wanted: str) -> None:
    assert got == wanted


def test_off_a_terminal_progress_is_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().bar("corpus", 10, "files") as bar:
        bar.advance(10)
        bar.show(rows=5)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("corpus  10/10 files  100 %") and "rows 5" in captured.err


def test_quiet_says_nothing_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Silent()
    with progress.bar("corpus", 10, "files") as bar:
        bar.advance()
    progress.say("hello")
    progress.warn("mind the gap")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "warning: mind the gap\n"


def test_work_done_before_counts_in_the_bar_not_in_the_rate() -> None:
    with Silent().bar("base", 100, "steps") as bar:
        bar.start_at(90)
        assert bar.text().startswith("base  90/100 steps  90 %  0 steps/s")


def test_work_goes_on_where_nobody_reads_stderr() -> None:
    script = (
        "from gptcli.console import print_error\n"
        "from gptcli.progress import Progress, Silent\n"
        "with Progress().bar('corpus', 2, 'files') as bar:\n"
        "    Progress().say('a' * 10_000); bar.advance(2)\n"
        "Silent().warn('b'); print_error('c', 'd'); print('done')"
    )
    nobody, stderr = os.pipe()
    os.close(nobody)
    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
    )
    os.close(stderr)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, script], stdout=subprocess.PIPE, text=True, check=False
    )
    assert (closed.returncode, closed.stdout) == (0, "done\n")
