"""What to pretrain: the model's sizes, the data and the rule it learns by."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from gptcli.artifacts.locations import model_input, resolve_model
from gptcli.artifacts.manifest import Input, Inputs, Manifest, read_manifest
from gptcli.artifacts.project import Project
from gptcli.console import human_count
from gptcli.errors import ArtifactError
from gptcli.spec import run_field
from gptcli.training.pack import LARGEST_ROW, SMALLEST_ROW
from gptcli.training.spec import TrainingSpec

STAGE = "pretrain"
KIND = "run"
FOLDER = "runs"
DEFAULT_NAME = "base"
TRAINED = True

WEIGHTS = ("*.safetensors", "*.bin")
CHECKPOINT_BYTES = 12  # a parameter: fp32 weight and at most two fp32 states


class PretrainSpec(TrainingSpec):
    """[pretrain.NAME]"""

    preset: Literal["", "3m", "10m", "30m", "124m", "350m", "760m", "1.5b"] = Field(
        "", description="sizes to start from, about so many parameters with 8,192 to 50,000 pieces"
    )
    tokens: str = Field("main", description="the tokens artifact to learn from")
    base: str = Field("", description="a model to go on from, whose shape is then the run's; none: from scratch")
    architecture: Literal["qwen3", "llama", "gpt2"] = Field(
        "qwen3", description="qwen3 normalises queries and keys; gpt2: learned positions, LayerNorm, GELU, biases"
    )
    hidden_size: int = Field(256, ge=8, description="width of the residual stream")
    num_layers: int = Field(4, ge=1, description="decoder layers")
    num_heads: int = Field(4, ge=1, description="attention heads")
    num_kv_heads: int = Field(0, ge=0, description="key and value heads; 0: as many as num_heads")
    head_dim: int = Field(64, ge=2, multiple_of=2, description="width of a head")
    intermediate_size: int = Field(0, ge=0, description="width of the MLP; 0: 8/3 hidden_size in steps of 64, gpt2: 4")
    tie_embeddings: bool = Field(False, description="one matrix for embedding and output head; it learns at head_lr")
    rope_theta: float = Field(10000.0, gt=0, description="base of the rotary phases")
    embedding_std: float = Field(0.02, gt=0, description="standard deviation of the initial embeddings")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of activations dropped in training")
    global_batch_tokens: int = Field(4096, ge=1, description="tokens a step; a multiple of seq_len")
    packing: Literal["stream", "concat", "bestfit"] = Field(
        "stream",
        description="stream: windows over the documents end to end; concat, bestfit: rows as tokenize packs them, by "
        "its index of this seq_len and seed if there is one",
    )
    document_mask: bool = Field(False, description="attention stays inside a document, positions count from its start")
    optimizer: Literal["muon", "adamw"] = Field("muon", description="rule for the matrices; the rest is AdamW's")
    lr: float = Field(0.0, ge=0, description="peak learning rate of the matrices; 0: by optimizer and width")
    embedding_lr: float = Field(0.0, ge=0, description="peak learning rate of the embeddings; 0: by width")
    head_lr: float = Field(0.0, ge=0, description="peak learning rate of the output head; 0: by width")
    gain_lr: float = Field(0.0, ge=0, description="peak learning rate of gains and biases; 0: the tuned one")

    z_loss: float = Field(0.0, ge=0, description="weight of the squared log-normaliser in the objective")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each target spread over the vocabulary")
    logit_softcap: float = Field(
        0.0, ge=0, description="bound of the logits, cap·tanh(logits/cap); 0: none. Other programs don't know of it"
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of averaged weights, which are then validated and kept; 0: none"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile; auto: on a GPU, as a CPU has operations of our own"
    )
    checkpoint_activations: bool = Field(
        False, description="compute each layer's activations again in backprop: less memory, a third more work"
    )
    ranks: int = run_field(0, "processes a step is shared among; 0: one a core on a CPU, else one", ge=0, le=256)
    sample_tokens: int = Field(48, ge=0, description="tokens of text the model writes at each validation; 0: none")

    @model_validator(mode="after")
    def _sizes_fit(self) -> PretrainSpec:
        fixed = self.micro_batch_size != "auto"
        unit = self.seq_len * (int(self.micro_batch_size) if fixed else 1)
        if self.global_batch_tokens % unit:
            below = self.global_batch_tokens // unit * unit
            nearest = ", ".join(str(tokens) for tokens in (below, below + unit) if tokens)
            raise ValueError(
                f"global_batch_tokens={self.global_batch_tokens} is not a multiple of "
                f"{'micro_batch_size*' if fixed else ''}seq_len={unit}; nearest: {nearest}"
            )
        if self.architecture == "llama" and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is no multiple of num_heads={self.num_heads}, "
                "which architecture=llama demands"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads={self.num_heads} is no multiple of num_kv_heads={self.kv_heads}")
        return self

    @model_validator(mode="after")
    def _gpt2_has_what_is_asked(self) -> PretrainSpec:
        if self.architecture != "gpt2":
            return self
        if self.hidden_size != self.num_heads * self.head_dim:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not num_heads*head_dim={self.num_heads * self.head_dim}, "
                "which architecture=gpt2 demands"
            )
        if self.kv_heads != self.num_heads:
            raise ValueError(f"num_kv_heads={self.num_kv_heads}: architecture=gpt2 shares no keys; leave it out")
        if self.rope_theta != type(self).model_fields["rope_theta"].default:
            raise ValueError(f"rope_theta={self.rope_theta}: architecture=gpt2 has learned positions; leave it out")
        return self

    @model_validator(mode="after")
    def _rows_can_be_packed(self) -> PretrainSpec:
        if self.packing != "stream" and not SMALLEST_ROW <= self.seq_len <= LARGEST_ROW:
            raise ValueError(
                f"seq_len={self.seq_len}: packing={self.packing} has rows of {SMALLEST_ROW} to {LARGEST_ROW} tokens; "
                "packing=stream takes any"
            )
        return self

    @model_validator(mode="after")
    def _a_tied_table_learns_as_a_head(self) -> PretrainSpec:
        if self.tie_embeddings and self.embedding_lr:
            raise ValueError(f"embedding_lr={self.embedding_lr}: with tie_embeddings the table learns at head_lr")
        return self

    @model_validator(mode="after")
    def _the_base_has_its_shape(self) -> PretrainSpec:
        said = [key for key in SHAPE if key in self.model_fields_set and getattr(self, key)]
        if self.base and said:
            raise ValueError(
                f"{said[0]}={getattr(self, said[0])!r}: base={self.base} has its own shape; leave it out, or choose a "
                "--name whose table lacks it"
            )
        return self

    def content(self) -> dict[str, Any]:
        """As every spec's, without the sizes that are the base's."""
        kept = super().content()
        return {key: value for key, value in kept.items() if not (self.base and key in SHAPE)}

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def mlp_width(self) -> int:
        if self.architecture == "gpt2":
            return self.intermediate_size or 4 * self.hidden_size
        return self.intermediate_size or max(64, int(8 * self.hidden_size / 3 / 64) * 64)

    @property
    def sequences(self) -> int:
        """Sequences a step."""
        return self.global_batch_tokens // self.seq_len


SPEC = PretrainSpec

_GPU = {"seq_len": 1024, "global_batch_tokens": 524288, "tie_embeddings": True}
PRESETS: dict[str, dict[str, Any]] = {
    "3m": {"hidden_size": 128, "num_layers": 4, "num_heads": 2},
    "10m": {"hidden_size": 256, "num_layers": 8, "num_heads": 4, "seq_len": 512, "global_batch_tokens": 8192},
    "30m": {"hidden_size": 448, "num_layers": 9, "num_heads": 7, "seq_len": 512, "global_batch_tokens": 16384},
    "124m": {**_GPU, "hidden_size": 768, "num_layers": 12, "num_heads": 12},
    "350m": {**_GPU, "hidden_size": 1024, "num_layers": 24, "num_heads": 16},
    "760m": {**_GPU, "hidden_size": 1536, "num_layers": 24, "num_heads": 12, "head_dim": 128},
    "1.5b": {**_GPU, "hidden_size": 2048, "num_layers": 28, "num_heads": 16, "head_dim": 128},
}
# What a model that training goes on from decides, not the recipe.
SHAPE = (
    "preset",
    "architecture",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "tie_embeddings",
    "rope_theta",
    "embedding_std",
    "logit_softcap",
)


def inputs(spec: PretrainSpec, project: Project, previous: Manifest | None) -> Inputs:
    manifest = tokens_manifest(spec.tokens, project)
    tokens = Input("tokens", f"tokens/{spec.tokens}", manifest.content_sha256)
    return Inputs((tokens, model_input(project, spec.base, "base")) if spec.base else (tokens,))


def tokens_manifest(name: str, project: Project) -> Manifest:
    """The manifest of tokens/NAME; ArtifactError naming the command that makes it."""
    place = project.place("tokens", name)
    if not place.exists():
        raise ArtifactError(f"there is no tokens/{name}", f"gptcli tokenize --name {name}")
    return read_manifest(place, "tokens")


def count_parameters(spec: PretrainSpec, vocab_size: int) -> int:
    """Parameters of the model, embeddings and head included."""
    tables = (1 if spec.tie_embeddings else 2) * vocab_size * spec.hidden_size
    if spec.architecture == "gpt2":
        tables += spec.seq_len * spec.hidden_size
        matrices = 4 * spec.hidden_size**2 + 2 * spec.hidden_size * spec.mlp_width
        vectors = 9 * spec.hidden_size + spec.mlp_width  # biases of four projections, two norms of two
        return spec.num_layers * (matrices + vectors) + tables + 2 * spec.hidden_size
    attention = spec.hidden_size * spec.head_dim * 2 * (spec.num_heads + spec.kv_heads)
    gains = 2 * spec.hidden_size + (2 * spec.head_dim if spec.architecture == "qwen3" else 0)
    layer = attention + 3 * spec.hidden_size * spec.mlp_width + gains
    return spec.num_layers * layer + tables + spec.hidden_size


def disk_needed(spec: PretrainSpec, project: Project, inputs: Inputs) -> int:
    """Bytes of all checkpoints that are on disk together."""
    if spec.base:
        directory = resolve_model(project, spec.base).directory
        stored = sum(path.stat().st_size for pattern in WEIGHTS for path in directory.glob(pattern))
        parameters = stored // 2  # at most: numbers have two bytes or four
    else:
        vocab_size = int(tokens_manifest(spec.tokens, project).stats["vocab_size"])
        parameters = count_parameters(spec, vocab_size)
    return spec.checkpoints_at_once * (CHECKPOINT_BYTES + (4 if spec.ema else 0)) * parameters


def summary(stats: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("parameters", human_count(stats["parameters"])),
        ("steps", f"{stats['step']:,} ({human_count(stats['tokens'])} tokens, {stats['epochs']:.2f} epochs)"),
        ("train loss", f"{stats['train_loss']:.4f}"),
    ]
    if "val_loss" in stats:
        rows.append(("validation loss", f"{stats['val_loss']:.4f}"))
        rows.append(("validation bits per byte", f"{stats['val_bits_per_byte']:.4f}"))
    return rows
