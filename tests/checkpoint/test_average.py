from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptcli.artifacts.locations import resolve_model
from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.checkpoint import derived, imported, one_step_run
from gptcli.checkpoint.command import checkpoint
from gptcli.errors import ArtifactError, ResourceError, SpecError
from gptcli.inference.open import answers_chat, open_model
from gptcli.models import weights
from gptcli.models.load import load_adapter, load_model, save_adapter
from gptcli.models.lora import LoraConfig, apply_lora, merge

STEP = "checkpoints/step-00000000"


def call(root: Path, *words: str) -> None:
    checkpoint([*words, "-C", str(root)], standalone_mode=False)


def ask(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    call(root, *words, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def weights_of(root: Path, run: str) -> dict[str, torch.Tensor]:
    return load_file(root / "runs" / run / STEP / "model.safetensors")


def stored_bytes(root: Path, run: str) -> bytes:
    return (root / "runs" / run / STEP / "model.safetensors").read_bytes()


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "manifest.json" and ".gptcli" not in path.parts
    }


@pytest.fixture(scope="module")
def made(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three models of one shape, a and b in fp32, and bf and hf, a in half precision; not changed."""
    root = tmp_path_factory.mktemp("averages") / "project"
    root.mkdir()
    stories = data_dir / "stories260K-hf"
    call(root, "import", str(stories), "--name", "a")
    call(root, "import", str(stories), "--name", "bf", "--dtype", "bfloat16")
    generator = torch.Generator().manual_seed(1)
    for name, dtype in (("b", torch.float32), ("c", torch.float32), ("hf", torch.float16)):
        changed = Path(shutil.copytree(stories, root.parent / name))
        state = load_file(changed / "model.safetensors")
        noise = {key: 0.01 * torch.randn(value.shape, generator=generator) for key, value in state.items()}
        save_file({key: (state[key] + noise[key]).to(dtype) for key in state}, changed / "model.safetensors")
        call(root, "import", str(changed), "--name", name)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project", ignore=shutil.ignore_patterns(".gptcli")))


@pytest.mark.parametrize("run", ["a", "bf", "hf"])
@pytest.mark.parametrize(
    "words",
    [(), ("--weights", "1,2,4"), ("--method", "ema", "--decay", "0.3")],
    ids=["uniform", "weights", "ema"],
)
def test_three_copies_average_to_the_same_bytes(root: Path, run: str, words: tuple[str, ...]) -> None:
    call(root, "average", run, run, run, "--name", "mean", *words)
    assert stored_bytes(root, "mean") == stored_bytes(root, run)
    for name in ("config.json", "generation_config.json", "tokenizer.model"):
        assert (root / "runs/mean" / STEP / name).read_bytes() == (root / "runs" / run / STEP / name).read_bytes()


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_the_way_from_a_model_to_itself_is_itself(root: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, "average", "bf", "bf", "--name", "mean", "--method", method, "--t", "0.3")
    assert stored_bytes(root, "mean") == stored_bytes(root, "bf")
    found = ask(root, capsys, "diff", "bf", "mean")
    assert found["same"] is True and found["title"] == "bf and mean: no difference" and found["whole"]["changed"] == 0
    assert found["spec"] and found["lineage"]  # where it comes from is told, and is no difference
    capsys.readouterr()
    call(root, "diff", "bf", "mean")
    assert capsys.readouterr().out == "bf and mean: no difference\n"


def test_a_foreign_model_and_its_average_with_itself_do_not_differ(
    root: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its dropout, which no model here has, and a vocabulary in two files, which became one, are no differences."""
    foreign = Path(shutil.copytree(data_dir / "ckpt-hf-tiny-gpt2", root / "foreign"))
    assert json.loads((foreign / "config.json").read_text())["attn_pdrop"] == 0.1
    call(root, "average", "./foreign", "./foreign", "--name", "mean")
    for pair in (("./foreign", "mean"), ("mean", "./foreign")):
        assert ask(root, capsys, "diff", *pair)["same"] is True
    vocabulary = json.loads((foreign / "vocab.json").read_text())
    first, second = [piece for piece in vocabulary if len(piece) == 1][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (foreign / "vocab.json").write_text(json.dumps(vocabulary))
    found = ask(root, capsys, "diff", "./foreign", "mean")
    assert found["same"] is False and found["tokenizer"] == ["tokenizer.json"]


def test_an_average_is_a_run_that_knows_what_it_was_made_from(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(root, capsys, "average", "a", "b", "c", "--name", "mean", "--weights", "1,2,1")
    assert found["checkpoint"] == f"runs/mean/{STEP}" and found["averaged"] is True
    assert found["weights"] == [0.25, 0.5, 0.25] and found["parameters"] == 260_032
    a, b, c, mean = (weights_of(root, name) for name in ("a", "b", "c", "mean"))
    for name in a:
        assert torch.allclose(mean[name], 0.25 * a[name] + 0.5 * b[name] + 0.25 * c[name], atol=1e-6), name
    manifest = read_manifest(resolve_model(Project.open(root), "mean").directory, "checkpoint")
    assert [entry.path for entry in manifest.inputs] == [f"runs/{name}/{STEP}" for name in "abc"]
    assert verify_files(root / "runs/mean", read_manifest(root / "runs/mean", "run")) == []
    assert ask(root, capsys, "verify", "mean", "--deep")["damaged"] == 0
    shown = ask(root, capsys, "show", "mean")
    assert [entry["path"] for entry in shown["lineage"]] == [f"runs/{name}/{STEP}" for name in "abc"]
    runs = {run["run"]: run["kind"] for run in ask(root, capsys, "list")["runs"]}
    assert runs["mean"] == "average" and runs["a"] == "imported"
    planned = ask(root, capsys, "prune", "a", "--keep", "1", "--dry-run")
    assert "runs/mean was made from it" in planned["kept"][f"runs/a/{STEP}"]


def test_the_same_command_again_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ask(root, capsys, "average", "a", "b", "--name", "mean")
    before = files_of(root)
    again = ask(root, capsys, "average", "a", "b", "--name", "mean", "--weights", "3,3")
    assert (first["averaged"], again["averaged"]) == (True, False) and files_of(root) == before
    for words in (("a", "b", "--weights", "1,2"), ("b", "a"), ("a", "c")):
        with pytest.raises(ArtifactError, match="stands already and is made by checkpoint average otherwise"):
            call(root, "average", *words, "--name", "mean")
    with pytest.raises(ArtifactError, match="a run that was trained or imported"):
        call(root, "average", "a", "b", "--name", "c")
    assert files_of(root) == before
    call(root, "average", "a", "c", "--name", "mean", "--force")
    assert files_of(root / "runs/mean.1") == {
        name.removeprefix("runs/mean/"): data for name, data in before.items() if name.startswith("runs/mean/")
    }
    assert not ask(root, capsys, "average", "a", "c", "--name", "mean")["averaged"]


def test_a_model_is_not_averaged_into_itself(root: Path) -> None:
    with pytest.raises(ArtifactError, match="runs/a is what it is to be made from"):
        call(root, "average", "a", "b", "--name", "a", "--force")


def test_models_that_differ_are_refused_by_what_differs(root: Path, data_dir: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.embed_tokens\.weight is stored as float32 and bfloat16"):
        call(root, "average", "a", "bf", "--name", "x")
    with pytest.raises(ArtifactError, match=r"they differ: .*model_type llama and gpt2"):
        call(root, "average", "a", str(data_dir / "ckpt-hf-tiny-gpt2"), "--name", "x")
    other = Path(shutil.copytree(data_dir / "stories260K-hf", root / "other"))
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(config, indent=7))  # other bytes, the same values
    call(root, "average", "a", "./other", "--name", "same")
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": "<b>"}))
    with pytest.raises(ArtifactError, match=r"a and \./other can't be averaged, they differ: their tokenizer_config"):
        call(root, "average", "a", "./other", "--name", "x")
    assert not (root / "runs/x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a",), "two models or more"),
        (("a", "b", "--method", "median"), "no way to average"),
        (("a", "b", "c", "--method", "spherical"), "between two models, not 3"),
        (("a", "b", "--t", "0.3"), "--t says nothing to --method uniform"),
        (("a", "b", "--method", "linear", "--weights", "1,2"), "--weights says nothing"),
        (("a", "b", "--weights", "1,2,3"), "3 weights for 2 models"),
        (("a", "b", "--weights", "1,x"), "not numbers"),
        (("a", "b", "--weights", "0,0"), "one of them is above 0"),
        (("a", "b", "--method", "ema", "--decay", "1"), "outside 0"),
        (("a", "b", "--method", "spherical", "--t", "1.5"), "an arc|outside 0"),
        (("a", "b", "--method", "linear", "--t", "nan"), "no finite number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_can_t_be_meant_is_refused(made: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        call(made, "average", *words, "--name", "x")
    assert not (made / "runs/x").exists()


def test_a_damaged_model_is_not_averaged(root: Path) -> None:
    path = root / "runs/b" / STEP / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged"):
        call(root, "average", "a", "b", "--name", "x")


def test_an_outcome_too_large_for_its_type_is_refused(root: Path) -> None:
    target = Path(shutil.copytree(root / "runs/hf" / STEP, root / "far"))
    (target / "manifest.json").unlink()
    save_file({name: tensor + 1 for name, tensor in weights_of(root, "hf").items()}, target / "model.safetensors")
    with pytest.raises(ArtifactError, match="too large for float16"):
        call(root, "average", "hf", "./far", "--name", "x", "--method", "linear", "--t", "1e9")
    assert not (root / "runs/x" / STEP).exists()


def test_what_is_written_is_read_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(path: Path, tensors: dict[str, Any], advance: Any) -> None:
        weights.write_streamed(path, tensors, advance)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(imported, "write_streamed", damaged)
    with pytest.raises(ArtifactError, match="read back is not what was written"):
        call(root, "average", "a", "b", "--name", "x")
    monkeypatch.undo()
    call(root, "average", "a", "b", "--name", "x")


def test_too_small_a_disk_is_told_before_anything_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_step_run.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 10))  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match="10 B are free"):
        call(root, "average", "a", "b", "--name", "x")
    assert not (root / "runs/x").exists()


@pytest.fixture
def adapter(root: Path) -> Path:
    """A directory with an adapter on the run a, its factors drawn."""
    base = root / "runs/a" / STEP
    model = load_model(base)
    lora = LoraConfig(rank=2, alpha=4, token_ids=(3,))
    torch.manual_seed(0)
    apply_lora(model, lora, torch.Generator())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    home = root / "tuned"
    home.mkdir()
    save_adapter(model, lora, f"runs/a/{STEP}", home)
    return home


def test_an_adapter_is_merged_into_its_base(root: Path, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(root, capsys, "verify", "./tuned", "--deep")["damaged"] == 0
    found = ask(root, capsys, "merge", "./tuned", "--name", "whole")
    assert found["merged"] is True and found["adapter"]["path"] == "tuned"
    assert found["base"]["path"] == f"runs/a/{STEP}" and 0 < found["changed_tensors"] < found["tensors"]
    model = load_model(root / "runs/a" / STEP)
    load_adapter(model, adapter)
    wanted, stored = merge(model), weights_of(root, "whole")
    assert all(torch.equal(stored[name], wanted[name]) for name in stored)
    ids = torch.tensor([[1, 403, 407, 3]])
    whole, tokenizer, ref = open_model(Project.open(root), "whole", torch.device("cpu"))
    assert torch.allclose(whole(ids), model(ids), atol=1e-4)
    stops = json.loads((root / "runs/whole" / STEP / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.eot_id in (stops if isinstance(stops, list) else [stops])
    assert answers_chat(ref, tokenizer) == bool(tokenizer.marker_ids)
    assert ask(root, capsys, "verify", "whole", "--deep")["damaged"] == 0
    assert ask(root, capsys, "merge", "./tuned", "--name", "whole")["merged"] is False
    call(root, "average", "a", "whole", "--name", "between")


def test_merge_and_average_tell_adapters_from_whole_models(root: Path, adapter: Path) -> None:
    with pytest.raises(ArtifactError, match="a is a whole model"):
        call(root, "merge", "a", "--name", "x")
    with pytest.raises(ArtifactError, match="is an adapter: the mean of two products") as caught:
        call(root, "average", "./tuned", "./tuned", "--name", "x")
    assert "checkpoint merge ./tuned" in caught.value.hint
    with pytest.raises(ArtifactError, match="is an adapter, a a whole model"):
        call(root, "diff", "a", "./tuned")
    shutil.rmtree(root / "runs/a")
    with pytest.raises(ArtifactError, match=r"the base model .* is missing"):
        call(root, "merge", "./tuned", "--name", "x")


class Killed(BaseException):
    """The process ends here."""


CUTS = {
    "spec": (one_step_run, "write_json"),
    "weights": (derived, "write_model"),
    "read back": (derived, "check_written"),
    "metrics": (one_step_run, "write_bytes"),
    "manifest": (one_step_run, "write_manifest"),
    "step aside": (one_step_run, "set_aside"),
    "take the name": (one_step_run, "replace"),
}


def cut(root: Path, monkeypatch: pytest.MonkeyPatch, where: str, *words: str) -> None:
    """A command that is killed there."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*CUTS[where], die)
        with pytest.raises(Killed):
            call(root, *words)


@pytest.mark.parametrize("where", [where for where in CUTS if where != "step aside"])
def test_an_average_cut_short_anywhere_goes_on(where: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(root, "average", "a", "b", "--name", "undisturbed")
    cut(root, monkeypatch, where, "average", "a", "b", "--name", "mean")
    assert not (root / "runs/mean").exists()
    call(root, "average", "a", "b", "--name", "mean")
    assert files_of(root / "runs/mean") == files_of(root / "runs/undisturbed")
    assert not list((root / "runs").rglob("*.partial"))


@pytest.mark.parametrize("where", CUTS)
def test_the_run_that_stands_stays_until_the_new_one_is_whole(
    where: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(root, "average", "a", "c", "--name", "mean")
    stood = files_of(root / "runs/mean")
    again = ("average", "a", "b", "--name", "mean", "--force")
    cut(root, monkeypatch, where, *again)
    stands = "mean.1" if where == "take the name" else "mean"  # set aside, and the new one is whole
    assert files_of(root / "runs" / stands) == stood
    assert (root / "runs/mean.1").exists() == (where == "take the name")
    call(root, *again)
    assert files_of(root / "runs/mean.1") == stood
    assert verify_files(root / "runs/mean", read_manifest(root / "runs/mean", "run")) == []
    assert not (root / "runs/mean.2").exists()
    call(root, *again)  # the same comes out: nothing is worth a second name
    assert not (root / "runs/mean.2").exists() and not list((root / "runs").rglob("*.partial"))


def test_a_run_killed_before_its_first_file_is_not_kept(root: Path) -> None:
    (root / "runs/mean").mkdir()
    (root / "runs/mean/spec.json.tmp").write_text("{")
    call(root, "average", "a", "b", "--name", "mean", "--force")
    assert not (root / "runs/mean.1").exists() and (root / "runs/mean" / STEP).is_dir()


def test_a_failed_average_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ResourceError("no space left")

    monkeypatch.setattr(derived, "check_written", fail)
    with pytest.raises(ResourceError):
        call(root, "average", "a", "b", "--name", "mean")
    assert not [path for path in (root / "runs").iterdir() if "mean" in path.name]
