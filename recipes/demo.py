"""The whole chain on the Python standard library, stage by stage, with a table of what it took and what came out.

usage: python recipes/demo.py DIR    (an empty or an earlier demo's directory)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

QUESTIONS = ("What does os.path.join do?", "What does json.loads do?", "What is collections.Counter?")
GPTCLI = [sys.executable, "-m", "gptcli"]

# Opens the export with transformers and compares logits in fp32 with the model it was made from.
COMPARE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from gptcli.artifacts.project import Project
from pathlib import Path
from gptcli.inference.open import open_model
project = Project.open(Path(sys.argv[1]))
theirs = AutoModelForCausalLM.from_pretrained(
    project.root / sys.argv[2], dtype=torch.float32, attn_implementation="eager"
)
tokenizer = AutoTokenizer.from_pretrained(project.root / sys.argv[2])
ours = open_model(project, sys.argv[3], torch.device("cpu"))[0]
ids = torch.tensor([tokenizer(sys.argv[4])["input_ids"]])
with torch.inference_mode():
    print(json.dumps(float((ours(ids) - theirs(ids).logits).abs().max())))
"""


def gptcli(project: Path, *words: str) -> dict[str, Any]:
    """One command with --json, its progress on this terminal; ends the demo when it fails."""
    print(f"\n$ gptcli {' '.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run([*GPTCLI, *words, "-C", str(project), "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def stage(rows: list[tuple[str, ...]], project: Path, rate: Any, *words: str) -> dict[str, Any]:
    """Run a stage and add its row: name, wall time, rate, output."""
    started = time.monotonic()
    report = gptcli(project, *words)
    seconds = time.monotonic() - started
    name = f"{words[0]} {words[1]}" if words[0] in ("eval", "checkpoint") else words[0]
    did = "done already" if report["title"].endswith("done already") else rate(report, seconds)
    rows.append((name, f"{seconds:.1f} s", did, report["path"]))
    return report


def run_chain(project: Path) -> tuple[list[tuple[str, ...]], dict[str, dict[str, Any]]]:
    rows: list[tuple[str, ...]] = []

    def megabytes(report: dict[str, Any], seconds: float) -> str:
        return f"{sum(split['bytes'] for split in report['splits'].values()) / 1e6 / seconds:.1f} MB/s"

    def tokens(report: dict[str, Any], seconds: float) -> str:
        return f"{report['tokens'] / seconds:,.0f} tokens/s"

    def nothing(report: dict[str, Any], seconds: float) -> str:
        return ""

    reports = {
        "corpus": stage(rows, project, megabytes, "corpus"),
        "tokenize": stage(rows, project, megabytes, "tokenize"),
        "pretrain": stage(rows, project, tokens, "pretrain"),
        "eval": stage(rows, project, tokens, "eval", "base"),
    }
    stage(rows, project, nothing, "checkpoint", "tag", "base", "0.1.0")
    reports["chat"] = stage(rows, project, tokens, "finetune-lora")
    reports["eval chat"] = stage(rows, project, nothing, "eval", "chat")
    reports["export"] = stage(rows, project, nothing, "export", "chat", "--to", "hf")
    return rows, reports


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def figures(project: Path, reports: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    measured, chat = reports["eval"], reports["chat"]
    rows = [("bits per byte, this model", f"{measured['bits_per_byte']:.3f}")]
    for label, key in (
        ("bits per byte, gzip -9, each document alone", "gzip_bits_per_byte"),
        ("bits per byte, xz -9e, each document alone", "xz_bits_per_byte"),
        ("bits per byte, gzip -9, one stream", "gzip_bits_per_byte_stream"),
        ("bits per byte, xz -9e, one stream", "xz_bits_per_byte_stream"),
    ):
        rows.append((label, f"{measured[key]:.3f}"))
    for name, label in (("eval", "before"), ("eval chat", "after")):
        if "package.acc" in reports[name]:
            shown = f"{reports[name]['package.acc']:.1%} of {reports[name]['package.items']}"
            rows.append((f"package of a docstring told right, {label} LoRA", shown))
    rows.append(
        ("chat validation loss before and after LoRA", f"{chat['val_loss_before']:.3f} → {chat['val_loss']:.3f}")
    )
    compared = subprocess.run(
        [sys.executable, "-c", COMPARE, str(project), "exports/main", "chat", QUESTIONS[0]],
        capture_output=True,
        text=True,
        check=False,
    )
    difference = compared.stdout.strip() or "not measured: pip install 'gptcli[interop]'"
    rows.append(("largest logit difference to the export in transformers", difference))
    return rows


def main() -> None:
    project = Path(sys.argv[1]).resolve()
    started = time.monotonic()
    if not (project / "recipe.toml").exists():
        subprocess.run([*GPTCLI, "init", str(project), "--template", "pystdlib"], check=True)
    rows, reports = run_chain(project)
    answers = []
    for question in QUESTIONS:
        command = [*GPTCLI, "chat", "./exports/main", "-C", str(project), "--prompt", question]
        told = subprocess.run(
            [*command, "--temperature", "0", "--max-tokens", "80"], stdout=subprocess.PIPE, text=True, check=True
        )
        answers.append((question, told.stdout.strip()))
    print("\n")
    print_table([("stage", "wall time", "rate", "output"), *rows])
    print()
    print_table(figures(project, reports))
    for question, answer in answers:
        print(f"\n> {question}\n{answer}")
    print(f"\n{time.monotonic() - started:.0f} s in all; ask more: gptcli chat ./exports/main -C {project}")


if __name__ == "__main__":
    main()
