from __future__ import annotations

import json
import shutil

import pytest
import torch

from gptcli import stage
from gptcli.artifacts.manifest import read_manifest, verify_files
from gptcli.artifacts.project import Project
from gptcli.errors import ArtifactError, SpecError
from gptcli.export import hf
from gptcli.export.formats import FORMATS
from gptcli.export.run import run
from gptcli.export.spec import ExportSpec, inputs
from gptcli.inference.open import open_model
from gptcli.job import Job
from gptcli.models.load import load_model, stored_dtype
from gptcli.options import Shared
from gptcli.progress import Silent

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
QUESTION = [{"role": "user", "content": "What is a node?"}]


def export(project: Project, model: str, *settings: str, **shared: object):
    options = Shared(project=project.root, quiet=True, settings=list(settings), **shared)  # type: ignore[arg-type]
    return stage.execute("export", options, {"model": model, "to": "hf"})


def sample_ids(project: Project, model: str) -> torch.Tensor:
    tokenizer = open_model(project, model, CPU)[1]
    return torch.tensor([tokenizer.document("class Node:\n    '''Abstract syntax.'''\n")])


@torch.no_grad()
def difference(project: Project, model: str, theirs) -> float:
    ids = sample_ids(project, model)
    return float((open_model(project, model, CPU)[0](ids) - theirs.eval()(ids).logits).abs().max())


def test_a_base_model_goes_out_as_it_is(trained):
    report = export(trained, "base")
    place = trained.root / "exports" / "main"
    assert report.figures["max_logit_difference"] == 0.0
    assert (place / "model.safetensors").read_bytes() == (
        trained.root / "runs/base/checkpoints/step-00000020/model.safetensors"
    ).read_bytes()
    assert not (place / "trainer").exists()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager")
    assert difference(trained, "base", theirs) < 1e-4
    assert theirs.generation_config.eos_token_id == 2
    assert verify_files(place, read_manifest(place, "export")) == []


def test_an_adapter_is_merged_and_chats_in_transformers(trained):
    report = export(trained, "chat", name="mine")
    place = trained.root / "exports" / "mine"
    assert report.figures["layout"] == "adapter merged"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager")
    assert difference(trained, "chat", theirs) < 1e-4
    assert theirs.generation_config.eos_token_id == [2, 5]
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    mine = open_model(trained, "chat", CPU)[1]
    from gptcli.templates import encode_chat

    rendered = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(rendered) == encode_chat(mine, QUESTION, add_generation_prompt=True)[0]
    assert tokenizer.model_max_length == 128
    reopened = open_model(trained, "exports/mine", CPU)
    assert reopened[2].kind == "directory"


def test_base_and_adapter_apart_open_in_peft(trained, monkeypatch):
    peft = pytest.importorskip("peft")
    export(trained, "chat", "merge=false")
    place = trained.root / "exports" / "main"
    base = transformers.AutoModelForCausalLM.from_pretrained(place / "base", attn_implementation="eager")
    assert difference(trained, "base", base) < 1e-4
    theirs = peft.PeftModel.from_pretrained(base, place)
    assert difference(trained, "chat", theirs) < 1e-4
    monkeypatch.chdir(place)
    auto = peft.AutoPeftModelForCausalLM.from_pretrained(".", attn_implementation="eager")
    assert difference(trained, "chat", auto) < 1e-4
    monkeypatch.undo()
    ids = sample_ids(trained, "chat")
    shutil.rmtree(trained.root / "runs" / "base")  # the export stands alone
    again, _, found = open_model(trained, "./exports/main", CPU)
    assert found.kind == "adapter"
    with torch.no_grad():
        assert torch.equal(again(ids), auto_free(place)(ids))


def auto_free(place):
    """The same export, opened from its parts."""
    from gptcli.models.load import load_adapter

    model = load_model(place / "base")
    load_adapter(model, place)
    return model


def test_a_cast_rounds_once_from_the_merged_fp32(trained):
    export(trained, "chat", "dtype=bfloat16", name="small")
    export(trained, "chat", "dtype=float32", name="wide")
    small, wide = (trained.root / "exports" / name for name in ("small", "wide"))
    assert (stored_dtype(small), stored_dtype(wide)) == (torch.bfloat16, torch.float32)
    rounded, exact = load_model(small, dtype=torch.bfloat16).state_dict(), load_model(wide).state_dict()
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)
    figures = read_manifest(small).stats
    assert 1e-4 < figures["max_logit_difference"] < 0.1 * figures["largest_logit"]


def test_the_card_tells_the_lineage(trained):
    export(trained, "chat")
    card = (trained.root / "exports" / "main" / "README.md").read_text(encoding="utf-8")
    for word in (
        "runs/chat",
        "runs/base",
        "corpus/main",
        "81,920",
        "lr=0.02",
        "PSF-2.0: 7",
        "books/a.txt",
        "<|im_end|>",
    ):
        assert word in card, word
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_the_same_export_again_is_done_already_and_a_rebuild_has_the_same_bytes(trained):
    first = export(trained, "chat")
    place = trained.root / "exports" / "main"
    files = {path: path.read_bytes() for path in place.iterdir() if path.is_file() and path.name != "manifest.json"}
    assert "done already" in export(trained, "chat").title
    assert export(trained, "chat", force=True).figures == first.figures
    assert {path: path.read_bytes() for path in files} == files


def test_a_wrong_export_is_never_called_done(trained, monkeypatch):
    merge = hf.merge
    monkeypatch.setattr(
        hf, "merge", lambda model: {n: t * 1.01 if "v_proj" in n else t for n, t in merge(model).items()}
    )
    with pytest.raises(ArtifactError, match="logits differ"):
        export(trained, "chat")
    assert not (trained.root / "exports" / "main").exists()
    monkeypatch.undo()
    export(trained, "chat")


def test_what_cannot_be_is_refused(trained):
    with pytest.raises(SpecError, match="no adapter"):
        export(trained, "base", "merge=false")
    with pytest.raises(ArtifactError, match="no run nothing"):
        export(trained, "nothing")
    with pytest.raises(SpecError, match="gguf"):
        stage.execute("export", Shared(project=trained.root, quiet=True), {"model": "base", "to": "gguf"})
    shutil.rmtree(trained.root / "runs" / "base")
    with pytest.raises(ArtifactError, match=r"base model .* is missing"):
        export(trained, "chat")


def test_an_adapter_whose_base_changed_is_refused(trained, tokenizer):
    path = trained.root / "runs/base/checkpoints/step-00000020/manifest.json"
    changed = json.loads(path.read_text()) | {"content_sha256": "0" * 64}
    path.write_text(json.dumps(changed))
    with pytest.raises(ArtifactError, match="has changed"):
        open_model(trained, "chat", CPU)


def test_every_format_can_be_asked_for():
    allowed = ExportSpec.model_json_schema()["properties"]["to"]
    names = allowed.get("enum") or [allowed["const"]]
    assert names == [each.name for each in FORMATS]


def test_a_model_of_others_goes_out(data_dir, project):
    shutil.copytree(data_dir / "stories260K-hf", project.root / "stories")
    report = export(project, "./stories")
    assert report.figures["max_logit_difference"] == 0.0
    place = project.root / "exports" / "main"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager")
    ids = torch.tensor([[1, 403, 407, 261, 378, 432, 383, 286]])
    with torch.no_grad():
        assert (load_model(place)(ids) - theirs(ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize(("model", "settings"), [("base", ()), ("chat", ()), ("chat", ("merge=false",))])
def test_the_card_s_own_code_runs(trained, monkeypatch, capsys, model, settings):
    pytest.importorskip("peft")
    export(trained, model, *settings)
    place = trained.root / "exports" / "main"
    code = (place / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    capsys.readouterr()
    monkeypatch.chdir(place)
    exec(code.replace("max_new_tokens=100", "max_new_tokens=5"), {})
    assert capsys.readouterr().out.strip()


def test_the_card_depends_on_spec_and_inputs_alone(trained):
    export(trained, "chat", name="one")
    export(trained, "chat", name="two")
    cards = [(trained.root / "exports" / name / "README.md").read_text(encoding="utf-8") for name in ("one", "two")]
    assert cards[0] == cards[1] and "\n# chat\n" in cards[0]
    manifests = [read_manifest(trained.root / "exports" / name) for name in ("one", "two")]
    assert manifests[0].content_sha256 == manifests[1].content_sha256
    assert [entry.role for entry in manifests[0].inputs] == ["model", "base", "corpus"]
    shutil.rmtree(trained.root / "corpus" / "main")  # less is known now, and that is no longer the same export
    with pytest.raises(ArtifactError, match="made otherwise"):
        export(trained, "chat", name="one")
    export(trained, "chat", name="one", update=True)
    card = (trained.root / "exports" / "one" / "README.md").read_text(encoding="utf-8")
    assert "PSF-2.0" not in card and "corpus/main" in card


def test_an_ancestor_that_goes_away_meanwhile_is_told(trained):
    spec = ExportSpec(model="chat")
    job = Job(trained, "main", trained.place("exports", "main"), inputs(spec, trained, None), Silent())
    job.place.parent.mkdir()
    shutil.rmtree(trained.root / "corpus" / "main")
    with pytest.raises(ArtifactError, match="corpus/main went away or changed meanwhile"):
        run(spec, job)
    assert not job.place.exists()
