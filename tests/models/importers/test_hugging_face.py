from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gptcli.errors import ArtifactError
from gptcli.models.importers import open_foreign
from gptcli.models.load import load_model, stored_dtype

from .conftest import config_of, random_state, write_config, write_sharded


def read_all(path: Path) -> dict[str, Tensor]:
    return {name: tensor.read() for name, tensor in open_foreign(path).tensors.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def extras(config, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What older files store beside the weights: tables that follow from the config, and a tied head."""
    if config.model_type == "gpt2":
        found = {
            "transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64),
            "transformer.h.1.attn.masked_bias": torch.ones(()),
        }
        return found | {"lm_head.weight": state["transformer.wte.weight"]}
    found = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    return found | ({"lm_head.weight": state["model.embed_tokens.weight"]} if config.tie_word_embeddings else {})


@pytest.mark.parametrize("layout", ["safetensors", "safetensors_sharded", "bin", "bin_sharded"])
def test_every_layout_gives_the_same_tensors(shape, layout, tmp_path):
    config = config_of(shape)
    state = random_state(config)
    directory = write_config(config, tmp_path / "model")
    stored = {**state, **extras(config, state)}
    kind, _, sharded = layout.partition("_")
    if sharded:
        write_sharded({name: tensor.clone() for name, tensor in stored.items()}, directory, kind)
    elif kind == "bin":
        torch.save(stored, directory / "pytorch_model.bin")
    else:
        save_file({name: tensor.clone() for name, tensor in stored.items()}, directory / "model.safetensors")
    assert same(read_all(directory), state)
    model = load_model(directory)
    assert same(dict(model.state_dict()), state) and model.config == config
    assert stored_dtype(directory) == torch.float32


def test_names_without_the_head_s_prefix_get_it(shape, tmp_path):
    config = config_of(shape)
    state = random_state(config)
    prefix = "transformer." if shape == "gpt2" else "model."
    directory = write_config(config, tmp_path / "model", architectures=["BareModel"])
    save_file({name.removeprefix(prefix): tensor for name, tensor in state.items()}, directory / "model.safetensors")
    assert same(read_all(directory), state)
    assert stored_dtype(directory) == torch.float32
    assert load_model(directory).config == config


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_weights_keep_their_type_until_they_are_loaded(dtype, tmp_path):
    config = config_of("qwen3")
    state = {name: tensor.to(dtype) for name, tensor in random_state(config).items()}
    directory = write_config(config, tmp_path / "model")
    torch.save(state, directory / "pytorch_model.bin")
    assert same(read_all(directory), state)
    assert stored_dtype(directory) == dtype
    assert same(dict(load_model(directory).state_dict()), {name: tensor.float() for name, tensor in state.items()})


def test_a_tied_head_that_is_another_is_told(tmp_path):
    config = config_of("gpt2")
    state = random_state(config)
    directory = write_config(config, tmp_path / "model")
    save_file({**state, "lm_head.weight": state["transformer.wte.weight"] + 1}, directory / "model.safetensors")
    with pytest.raises(ArtifactError, match="differs from the embedding"):
        open_foreign(directory)


def test_a_head_in_the_embedding_s_storage_is_a_tensor_of_its_own(tmp_path):
    config = config_of("llama")
    state = random_state(config)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    directory = write_config(config, tmp_path / "model")
    torch.save(state, directory / "pytorch_model.bin")
    model = load_model(directory)
    with torch.no_grad():
        model.get_parameter("lm_head.weight").zero_()
    assert torch.equal(model.get_parameter("model.embed_tokens.weight"), state["model.embed_tokens.weight"])


class Trap:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path):
    directory = write_config(config_of("llama"), tmp_path / "model")
    torch.save({"model.norm.weight": Trap(tmp_path / "sprung")}, directory / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin can't be read"):
        open_foreign(directory)
    assert not (tmp_path / "sprung").exists()


def compressed_rows() -> Tensor:
    return torch.sparse_csr_tensor([0, 1, 2], [0, 1], [1.0, 1.0], (2, 2))


def repeated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "model.norm.weight": torch.ones(1).expand(1 << 40)}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (repeated, "more elements than are stored"),
        (lambda state: {**state, "model.norm.weight": 3}, "no plain tensor"),
        (lambda state: {**state, "model.norm.weight": torch.eye(32).to_sparse()}, "no plain tensor"),
        (lambda state: {**state, "model.norm.weight": compressed_rows()}, "no plain tensor"),
        (lambda state: {**state, "model.norm.weight": torch.ones(32, device="meta")}, "no plain tensor"),
        (lambda state: [*state.values()], "no tensors by name"),
        (lambda state: {**state, "model.norm.weight": torch.ones(32, dtype=torch.int8)}, "holds int8"),
        (lambda state: {**state, "model.norm.weight": torch.ones(33)}, r"has shape \[33\], not \[32\]"),
        (lambda state: {name: state[name] for name in state if "layers.1" not in name}, "the weights have 1 layers"),
    ],
    ids=["stride 0", "a number", "sparse", "csr", "meta", "a list", "int8", "shape", "layers"],
)
def test_other_contents_of_a_bin_are_refused(change, words, tmp_path):
    config = config_of("llama")
    directory = write_config(config, tmp_path / "model")
    torch.save(change(random_state(config)), directory / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=words):
        open_foreign(directory)


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    directory = write_config(config_of("llama"), tmp_path / "model")
    with zipfile.ZipFile(directory / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    with pytest.raises(ArtifactError, match="claims more bytes than it has"):
        open_foreign(directory)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_files_cut_short_anywhere_are_refused(suffix, tmp_path):
    config = config_of("qwen2")
    state = random_state(config)
    directory = write_config(config, tmp_path / "model")
    path = directory / ("pytorch_model.bin" if suffix == "bin" else "model.safetensors")
    torch.save(state, path) if suffix == "bin" else save_file(state, path)
    whole = path.read_bytes()
    for part in range(16):
        path.write_bytes(whole[: len(whole) * part // 16])
        with pytest.raises(ArtifactError):
            open_foreign(directory)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 2**31),
        ("max_position_embeddings", 2**40),
        ("vocab_size", 2**62),
        ("intermediate_size", 2**62),
        ("hidden_size", "wide"),
        ("num_attention_heads", 0),
    ],
)
def test_a_config_of_impossible_sizes_is_refused_before_anything_is_made(key, value, tmp_path):
    config = config_of("qwen3")
    directory = write_config(config, tmp_path / "model", **{key: value})
    save_file(random_state(config), directory / "model.safetensors")
    with pytest.raises(ArtifactError):
        open_foreign(directory)
    with pytest.raises(ArtifactError):
        load_model(directory)


def test_heads_wider_than_any_are_refused_before_their_table_is_made(tmp_path, monkeypatch):
    directory = write_config(config_of("qwen3"), tmp_path / "model", head_dim=1 << 40)
    save_file(random_state(config_of("qwen3")), directory / "model.safetensors")
    monkeypatch.setattr("gptcli.models.importers.fitting.build_model", None)
    with pytest.raises(ArtifactError, match="head_dim=1099511627776 is more than any model has"):
        open_foreign(directory)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_tensor_in_two_files_is_named(kind, tmp_path):
    config = config_of("llama")
    state = random_state(config)
    directory = write_config(config, tmp_path / "model")
    write_sharded(state, directory, kind)
    first, second = sorted(directory.glob(f"*-of-*.{kind}"))[:2]
    both = {"model.norm.weight": torch.ones(32), "model.embed_tokens.weight": torch.ones(96, 32)}
    for path in (first, second):
        torch.save(both, path) if kind == "bin" else save_file(both, path)
    with pytest.raises(ArtifactError, match=rf"{second.name}: 'model\.embed_tokens\.weight' is in another file too"):
        load_model(directory)


def test_an_index_leads_nowhere_else_and_names_what_is_missing(tmp_path):
    config = config_of("llama")
    directory = write_config(config, tmp_path / "model")
    index = directory / "model.safetensors.index.json"
    save_file(random_state(config), tmp_path / "away.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "../away.safetensors"}}))
    with pytest.raises(ArtifactError, match=r"model/away\.safetensors is missing"):
        open_foreign(directory)
    for broken in ("[]", "{", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "config.json"}}'):
        index.write_text(broken)
        with pytest.raises(ArtifactError, match="index"):
            open_foreign(directory)


def test_other_formats_are_named(tmp_path):
    directory = write_config(config_of("llama"), tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"has no model\.safetensors"):
        open_foreign(directory)
    (directory / "tf_model.h5").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"tf_model\.h5"):
        open_foreign(directory)
    with pytest.raises(ArtifactError, match="there is no model at"):
        open_foreign(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        open_foreign(tmp_path)
    torch.save({}, directory / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="no model by its name") as caught:
        open_foreign(directory / "pytorch_model.bin")
    assert caught.value.hint == f"name its directory: {directory}"
