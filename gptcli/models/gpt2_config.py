"""The shape of a GPT-2 model, under Hugging Face's field names."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from gptcli.errors import ArtifactError
from gptcli.models.hf_fields import as_ids, one_or_more, token_ids

MODEL_TYPE = "gpt2"
ARCHITECTURE = "GPT2LMHeadModel"
# transformers' names for the two GELUs (Hendrycks & Gimpel 2016), as PyTorch tells them apart: "tanh" is the
# approximation, "none" the exact one. The fast and "new" ones differ in how the same formula is written.
GELUS = {
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu": "none",
    "gelu_python": "none",
}
# Files name a size by the first; transformers takes the second for it too.
_SIZES = (
    ("n_positions", "max_position_embeddings"),
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
)
# Switches that change the result; what is computed here is the value listed, which is also what absence means.
_FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
_END_OF_TEXT = 50256  # what transformers assumes for bos and eos where a config.json leaves the key out


@dataclass(frozen=True)
class Gpt2Config:
    """Sizes and switches of one model; every field means what it means in Hugging Face's config.json.

    `n_inner` None: four times n_embd. `final_logit_softcapping` c makes logits c · tanh(logits / c); 0: none.
    Token ids stand here because config.json carries them; the model itself never reads them.
    Raises ArtifactError when the sizes contradict each other or the activation is another.
    """

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    final_logit_softcapping: float = 0.0

    def __post_init__(self) -> None:
        for field in ("vocab_size", *(size for size, _ in _SIZES), "intermediate_size"):
            if getattr(self, field) < 1:
                raise ArtifactError(f"model config: {field} is {getattr(self, field)}, must be at least 1")
        if self.n_embd % self.n_head:
            raise ArtifactError(f"model config: n_embd={self.n_embd} is not a multiple of n_head={self.n_head}")
        if self.activation_function not in GELUS:
            raise ArtifactError(
                f"activation {self.activation_function!r} is not supported for gpt2", f"supported: {', '.join(GELUS)}"
            )
        if not 0 <= self.layer_norm_epsilon < math.inf:
            raise ArtifactError(
                f"model config: layer_norm_epsilon is {self.layer_norm_epsilon}, must be finite and not negative"
            )
        if not 0 <= self.final_logit_softcapping < math.inf:
            raise ArtifactError(
                f"model config: final_logit_softcapping is {self.final_logit_softcapping}, must be finite and not "
                "negative"
            )

    @property
    def model_type(self) -> str:
        return MODEL_TYPE

    @property
    def hidden_size(self) -> int:
        return self.n_embd

    @property
    def intermediate_size(self) -> int:
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def num_hidden_layers(self) -> int:
        return self.n_layer

    @property
    def num_attention_heads(self) -> int:
        return self.n_head

    @property
    def num_key_value_heads(self) -> int:
        return self.n_head

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def max_position_embeddings(self) -> int:
        return self.n_positions

    @property
    def gelu(self) -> str:
        """PyTorch's word for the activation: "tanh" or "none"."""
        return GELUS[self.activation_function]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All end-of-sequence ids, possibly none."""
        return as_ids(self.eos_token_id)

    @property
    def lookup_parameters(self) -> int:
        """Parameters that are looked up and multiply nothing: the positions, and an untied embedding."""
        return (self.n_positions + (0 if self.tie_word_embeddings else self.vocab_size)) * self.n_embd

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> Gpt2Config:
        """Read what config.json holds.

        Raises ArtifactError for a missing or mistyped key, another model type, or a feature this architecture does
        not compute (attention scaled by layer or not at all, cross-attention, another activation, quantisation).
        """
        if raw.get("model_type") != MODEL_TYPE:
            raise ArtifactError(f"model type {raw.get('model_type')!r} is not {MODEL_TYPE}")
        sizes = {name: raw.get(name, raw.get(other)) for name, other in _SIZES}
        sizes["vocab_size"] = raw.get("vocab_size")
        missing = [name for name, value in sizes.items() if value is None]
        if missing:
            raise ArtifactError(f"model config lacks {', '.join(missing)}")
        _refuse_unsupported(raw)
        try:
            return cls._read(raw, {name: int(value) for name, value in sizes.items() if value is not None})
        except (TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"model config: a value has the wrong type: {error}") from error

    @classmethod
    def _read(cls, raw: dict[str, Any], sizes: dict[str, int]) -> Gpt2Config:
        eps = raw.get("layer_norm_epsilon")
        assumed = _END_OF_TEXT if sizes["vocab_size"] > _END_OF_TEXT else None
        filled = {"bos_token_id": assumed, "eos_token_id": assumed, **raw}
        return cls(
            **sizes,
            n_inner=None if raw.get("n_inner") is None else int(raw["n_inner"]),
            activation_function=str(raw.get("activation_function") or "gelu_new"),
            layer_norm_epsilon=float(1e-5 if eps is None else eps),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", True)),
            bos_token_id=next(iter(token_ids(filled, "bos_token_id")), None),
            eos_token_id=one_or_more(filled, "eos_token_id"),
            pad_token_id=next(iter(token_ids(raw, "pad_token_id")), None),
            final_logit_softcapping=float(raw.get("final_logit_softcapping") or 0.0),
        )

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """What config.json holds, readable by transformers 4 (torch_dtype) and 5 (dtype).

        `dtype` names the stored weights' type, e.g. "bfloat16". Dropout belongs to a training, so it is 0 here.
        """
        out: dict[str, Any] = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE}
        out.update(dataclasses.asdict(self))
        if isinstance(self.eos_token_id, tuple):
            out["eos_token_id"] = list(self.eos_token_id)
        if not self.final_logit_softcapping:
            del out["final_logit_softcapping"]
        out.update(_FIXED, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)
        out.update(use_cache=True, dtype=dtype, torch_dtype=dtype)
        return out


def _refuse_unsupported(raw: dict[str, Any]) -> None:
    for key, computed in _FIXED.items():
        if raw.get(key, computed) is not computed:
            raise ArtifactError(f"{key}={raw[key]!r} is not supported for gpt2, only {computed}")
    if raw.get("quantization_config"):
        raise ArtifactError("quantised weights are not supported; use the unquantised model")
