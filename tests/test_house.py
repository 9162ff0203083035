"""The house's rules: which room may know which, what a cold start loads, which names and sizes are allowed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "gptcli"
STAGES = ("corpus", "tokenize", "pretrain", "eval", "checkpoint", "finetune_lora", "export")
HEAVY = ("torch", "pyarrow", "pydantic", "transformers", "numpy", "numba", "sentencepiece", "tokenizers")

# Top to bottom. A module's floor is that of the longest entry its dotted name begins with.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("command", "commands"),
    ("stage",),
    STAGES,
    ("training",),
    ("scoring",),
    ("inference",),
    ("models", "tokenizer", "templates"),
    ("engines",),
    ("records", "artifacts", "job"),
    ("runtime", "console", "page", "progress", "spec"),
    ("errors", "options", "__init__"),
)


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def floor(module: str) -> int:
    parts = module.split(".")
    if parts[0] in STAGES and parts[-1] == "command":
        return 2
    for number, names in enumerate(FLOORS):
        if parts[0] in names:
            return number
    raise AssertionError(f"gptcli.{module} stands on no floor: give its room a place in FLOORS")


def imports(path: Path) -> set[str]:
    """The gptcli modules a file imports anywhere in it, without the leading `gptcli.`."""
    known = modules()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole.removeprefix("gptcli.") in known else node.module)
    return {name.removeprefix("gptcli.") for name in found if name.startswith("gptcli.")}


def test_imports_go_down_only() -> None:
    wrong = []
    for module, path in modules().items():
        for other in imports(path):
            if other in modules() and floor(other) < floor(module):
                wrong.append(f"gptcli.{module} imports gptcli.{other}, which stands above it")
    assert not wrong, "\n".join(wrong)


def test_no_stage_imports_another() -> None:
    wrong = []
    for module, path in modules().items():
        room = module.split(".")[0]
        if room not in STAGES:
            continue
        for other in imports(path):
            if other.split(".")[0] in STAGES and other.split(".")[0] != room:
                wrong.append(f"gptcli.{module} imports gptcli.{other}")
    assert not wrong, "\n".join(wrong)


def test_no_circle() -> None:
    graph = {module: imports(path) & set(modules()) for module, path in modules().items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_commands_import_only_typer_and_options() -> None:
    allowed = {"__future__", "typing", "typer", "pathlib", "gptcli", "collections"}
    for stage in STAGES:
        tree = ast.parse((HOUSE / stage / "command.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed, f"{stage}/command.py: {node.module}"
                if (node.module or "").startswith("gptcli"):
                    assert node.module == "gptcli.options" or node.module.endswith(".command"), node.module
            elif isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed


def loaded_by(*words: str) -> tuple[list[str], str]:
    """Which heavy packages a command loads, and what it prints."""
    code = (
        "import sys, io, contextlib, json; sys.argv = ['gptcli', *json.loads(sys.argv[1])]; out = io.StringIO()\n"
        "import gptcli.cli\n"
        "if sys.argv[1:]:\n"
        "    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit): gptcli.cli.main()\n"
        f"print(json.dumps([[name for name in {HEAVY!r} if name in sys.modules], out.getvalue()]))"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(words)], capture_output=True, text=True, check=True)
    heavy, printed = json.loads(done.stdout)
    return heavy, printed


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_by()[0] == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("checkpoint",),
        ("init",),
        *[(stage.replace("_", "-"),) for stage in STAGES if stage != "checkpoint"],
        *[("checkpoint", verb) for verb in ("list", "show", "verify", "tag", "prune", "alias", "import")],
        ("chat",),
        ("status",),
        ("schema",),
    ],
    ids=" ".join,
)
def test_help_is_cold_and_shows_an_example(words: tuple[str, ...]) -> None:
    heavy, printed = loaded_by(*words, "--help")
    assert heavy == []
    assert "Example" in printed and f"gptcli {' '.join(words)}" in printed


def test_names_and_sizes() -> None:
    banned = {"utils", "common", "helpers", "misc", "core"}
    for path in HOUSE.rglob("*.py"):
        name = path.stem
        assert name not in banned and not name.startswith("base_") and not name.endswith("_manager"), path
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400, f"{path}: {len(lines)} lines"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name}: {length} lines"


def test_no_pickle() -> None:
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] in ("pickle", "dill", "joblib") for alias in node.names), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(each.arg == "weights_only" and ast.unparse(each.value) == "True" for each in node.keywords)
                assert safe and path.parent.name == "importers", path
