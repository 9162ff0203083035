"""Low-rank adaptation (LoRA, Hu et al. 2021) and trainable token rows, under PEFT's names.

A linear layer W becomes W + alpha/rank · B·A with W frozen. Beside it, the rows of chosen token ids are replaced by
trained ones in the embedding and in the head (PEFT's `trainable_token_indices`): markers that pretraining never
showed have rows no low-rank update of the layers between can move.

The adapted layers keep their `weight`, so base tensors keep their names, and an adapter's tensor is named as PEFT
names it less the prefix `base_model.model.`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptcli.errors import ArtifactError, SpecError
from gptcli.models.family import CausalLM
from gptcli.models.gpt2 import Conv1D, Gpt2
from gptcli.models.llama import OutputHead, TokenEmbedding

PREFIX = "base_model.model."
ALL_LINEAR = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
ALL_CONV1D = ("c_attn", "c_fc", "c_proj")
_ADAPTER_MARKS = (".lora_A.", ".lora_B.", ".token_adapter.")
# PEFT switches that change the result; each value listed is the only one supported.
_PEFT_OFF: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "target_parameters": (None, []),
    "exclude_modules": (None, []),
    "layer_replication": (None, []),
}


@dataclass(frozen=True)
class LoraConfig:
    """What is trained: `rank` of the update, its scale `alpha`/rank, `dropout` on the update's input.

    `target_modules` are names of linear layers (q_proj …), their whole paths, or "all-linear"; `token_ids` the rows
    trained in embedding and head; `fan_in_fan_out`: the base keeps its matrices as [in, out] (gpt2). Raises
    ArtifactError for a rank below 1, no target, or a token id named twice.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("all-linear",)
    token_ids: tuple[int, ...] = ()
    fan_in_fan_out: bool = False

    def __post_init__(self) -> None:
        if "all-linear" in self.target_modules:
            object.__setattr__(self, "target_modules", ALL_CONV1D if self.fan_in_fan_out else ALL_LINEAR)
        if self.rank < 1 or not self.target_modules:
            raise ArtifactError(f"LoRA needs a rank of at least 1 and a target module, not rank {self.rank}")
        if len(set(self.token_ids)) < len(self.token_ids):
            raise ArtifactError("LoRA: a token id is named twice among the trained rows")

    @property
    def scale(self) -> float:
        """The factor of B·A."""
        return self.alpha / self.rank

    def to_peft(self, base_path: str, tied: bool) -> dict[str, Any]:
        """What adapter_config.json holds; `tied`: head and embedding share one matrix."""
        embedding = "wte" if self.fan_in_fan_out else "embed_tokens"
        rows = {name: list(self.token_ids) for name in ((embedding,) if tied else (embedding, "lm_head"))}
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_path,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": int(self.alpha) if float(self.alpha).is_integer() else self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": sorted(self.target_modules),
            "trainable_token_indices": rows if self.token_ids else None,
            "bias": "none",
            "fan_in_fan_out": self.fan_in_fan_out,
            "init_lora_weights": True,
            "modules_to_save": None,
            "use_dora": False,
            "use_rslora": False,
        }

    @classmethod
    def from_peft(cls, raw: dict[str, Any]) -> LoraConfig:
        """Read adapter_config.json. Raises ArtifactError for anything but plain LoRA with trainable token rows."""
        if raw.get("peft_type") != "LORA":
            raise ArtifactError(f"adapters of type {raw.get('peft_type')!r} are not supported, only LORA")
        for key, allowed in _PEFT_OFF.items():
            if key in raw and raw[key] not in allowed:
                raise ArtifactError(f"{key}={raw[key]!r} is not supported in an adapter")
        targets = raw.get("target_modules")
        if targets == "all-linear":
            targets = [targets]
        if not isinstance(targets, list) or not targets:
            raise ArtifactError(f"target_modules={targets!r} is not supported, only a list of layer names")
        try:
            rank, alpha = int(raw["r"]), float(raw["lora_alpha"])
            dropout = float(raw.get("lora_dropout", 0.0))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"r, lora_alpha or lora_dropout is missing or no number: {error}") from error
        rows = _token_ids(raw.get("trainable_token_indices"))
        return cls(rank, alpha, dropout, tuple(sorted(targets)), rows, bool(raw.get("fan_in_fan_out", False)))


def _token_ids(raw: Any) -> tuple[int, ...]:
    if not raw:
        return ()
    if isinstance(raw, list):
        return tuple(raw)
    lists = [tuple(ids) for ids in raw.values()]
    if set(raw) - {"lm_head"} not in ({"embed_tokens"}, {"wte"}) or len(set(lists)) != 1:
        raise ArtifactError(
            "trainable_token_indices must name embed_tokens (gpt2: wte), and lm_head with the same ids, or nothing else"
        )
    return lists[0]


class _LowRank(nn.Module):
    """What any adapted layer adds to its frozen matrix: scale · B·A, the factors kept in fp32."""

    def _add_factors(self, base: nn.Linear | Conv1D, lora: LoraConfig) -> None:
        device = base.weight.device
        self.lora_A = nn.Linear(base.in_features, lora.rank, bias=False, device=device, dtype=torch.float32)
        self.lora_B = nn.Linear(lora.rank, base.out_features, bias=False, device=device, dtype=torch.float32)
        self.scale, self.dropout = lora.scale, lora.dropout

    def _update(self, x: Tensor) -> Tensor:
        low = F.dropout(x, self.dropout, self.training) if self.dropout else x
        low = F.linear(low, self.lora_A.weight.to(x.dtype))
        low = F.linear(low, self.lora_B.weight.to(low.dtype))
        return low * self.scale


class LoraLinear(_LowRank, nn.Linear):
    """A frozen linear layer plus its low-rank update; the factors are kept in fp32."""

    def __init__(self, base: nn.Linear, lora: LoraConfig) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self._add_factors(base, lora)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self._update(x)

    def merged(self) -> Tensor:
        """W + scale · B·A in fp32, [out, in]."""
        return self.weight.float() + self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())


class LoraConv1D(_LowRank, Conv1D):
    """The same for a matrix kept as [in, out]; the factors lie as they do beside a linear layer."""

    def __init__(self, base: Conv1D, lora: LoraConfig) -> None:
        with torch.device("meta"):
            super().__init__(base.in_features, base.out_features)
        self.weight, self.bias = base.weight, base.bias
        self._add_factors(base, lora)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self._update(x)

    def merged(self) -> Tensor:
        """W + scale · (B·A)ᵀ in fp32, [in, out]."""
        return self.weight.float() + self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float()).t()


class TokenRows(nn.Module):
    """Trained rows [n,H] of the token ids [n], kept in fp32, starting as the rows they replace."""

    def __init__(self, weight: Tensor, token_ids: tuple[int, ...]) -> None:
        super().__init__()
        self.ids: Tensor
        self.slots: Tensor
        ids = torch.tensor(token_ids, dtype=torch.int64)
        slots = torch.full((weight.shape[0],), -1, dtype=torch.int64)
        slots[ids] = torch.arange(len(token_ids))
        self.register_buffer("ids", ids.to(weight.device), persistent=False)
        self.register_buffer("slots", slots.to(weight.device), persistent=False)
        self.trainable_tokens_delta = nn.Parameter(weight.detach()[self.ids].float())

    def whole(self, weight: Tensor) -> Tensor:
        """The table [V,H] with the trained rows in place."""
        return weight.index_copy(0, self.ids, self.trainable_tokens_delta.to(weight.dtype))

    def embed(self, input_ids: Tensor, embedded: Tensor) -> Tensor:
        """`embedded` [B,T,H] with the trained rows where `input_ids` name them; only those get a gradient."""
        slots = self.slots[input_ids]
        rows = F.embedding(slots.clamp(min=0), self.trainable_tokens_delta.to(embedded.dtype))
        return torch.where((slots >= 0).unsqueeze(-1), rows, embedded)

    def score(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """`logits` […,V] with the trained rows' columns computed from `hidden` […,H]; no gradient for the others."""
        columns = F.linear(hidden, self.trainable_tokens_delta.to(hidden.dtype))
        return logits.index_copy(-1, self.ids, columns.to(logits.dtype))


class AdaptedEmbedding(TokenEmbedding):
    """A frozen embedding (and tied head) with some rows trained."""

    def __init__(self, base: TokenEmbedding, token_ids: tuple[int, ...]) -> None:
        super().__init__(base.num_embeddings, base.embedding_dim, device="meta")
        self.weight = base.weight
        self.token_adapter = TokenRows(base.weight, token_ids)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.token_adapter.embed(input_ids, super().forward(input_ids))

    def whole_weight(self) -> Tensor:
        return self.token_adapter.whole(self.weight)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.token_adapter.score(hidden, super().logits(hidden))


class AdaptedHead(OutputHead):
    """A frozen untied head with some rows trained."""

    def __init__(self, base: OutputHead, token_ids: tuple[int, ...]) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight = base.weight
        self.token_adapter = TokenRows(base.weight, token_ids)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.token_adapter.score(hidden, super().forward(hidden))

    def whole_weight(self) -> Tensor:
        return self.token_adapter.whole(self.weight)


def apply_lora(model: CausalLM, lora: LoraConfig, generator: torch.Generator) -> None:
    """Freeze `model` and put trainable low-rank updates and token rows into it, in place.

    A starts Kaiming-uniform as in PEFT, drawn from the CPU `generator` in layer order, B at zero: the model's
    output is unchanged. Raises SpecError when a target module isn't in the model, ArtifactError when a token id isn't
    or `fan_in_fan_out` is not how the model keeps its matrices.
    """
    root, decoder = _decoder_layers(model)
    if lora.fan_in_fan_out != isinstance(model, Gpt2):
        raise ArtifactError(f"fan_in_fan_out={lora.fan_in_fan_out} is not how a {model.config.model_type} is kept")
    layers = {path: layer for path, layer in decoder.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    chosen = {name: [path for path in layers if _matches(f".{root}.{path}", name)] for name in lora.target_modules}
    unknown = sorted(name for name, paths in chosen.items() if not paths)
    if unknown:
        raise SpecError(
            f"the model has no linear layer {', '.join(unknown[:5])}",
            f"target_modules: {', '.join(ALL_CONV1D if lora.fan_in_fan_out else ALL_LINEAR)}",
        )
    outside = [token for token in lora.token_ids if not 0 <= token < model.config.vocab_size]
    if outside:
        raise ArtifactError(f"token id {outside[0]} is outside the model's vocabulary of {model.config.vocab_size}")
    model.requires_grad_(False)
    wanted = {path for paths in chosen.values() for path in paths}
    for path, layer in layers.items():
        if path in wanted:
            parent, _, name = path.rpartition(".")
            setattr(decoder.get_submodule(parent), name, _adapted(layer, lora, generator))
    if lora.token_ids:
        _adapt_rows(model, lora.token_ids)
    model.train(model.training)  # the new layers drop, or don't, as the model does


def _decoder_layers(model: CausalLM) -> tuple[str, nn.ModuleList]:
    """The decoder's layers and their path in the model."""
    if isinstance(model, Gpt2):
        return "transformer.h", model.transformer.h
    return "model.layers", model.model.layers


def _adapt_rows(model: CausalLM, token_ids: tuple[int, ...]) -> None:
    if isinstance(model, Gpt2):
        model.transformer.wte = AdaptedEmbedding(model.transformer.wte, token_ids)
    else:
        model.model.embed_tokens = AdaptedEmbedding(model.model.embed_tokens, token_ids)
    if not model.config.tie_word_embeddings:
        model.lm_head = AdaptedHead(model.lm_head, token_ids)


def _matches(path: str, target: str) -> bool:
    """PEFT's rule: a target is a layer's whole path or its tail after a dot; `path` begins with one."""
    return path.endswith(f".{target}")


def _adapted(base: nn.Linear | Conv1D, lora: LoraConfig, generator: torch.Generator) -> LoraLinear | LoraConv1D:
    layer = LoraConv1D(base, lora) if isinstance(base, Conv1D) else LoraLinear(base, lora)
    start = torch.empty(layer.lora_A.weight.shape)
    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        layer.lora_A.weight.copy_(start)
        layer.lora_B.weight.zero_()
    return layer


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that get a gradient, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapter_state_dict(model: CausalLM) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names."""
    state = model.state_dict()
    return {PREFIX + name: tensor for name, tensor in state.items() if any(mark in name for mark in _ADAPTER_MARKS)}


@torch.no_grad()
def load_adapter_state_dict(model: CausalLM, tensors: dict[str, Tensor]) -> None:
    """Copy an adapter's tensors into a model that `apply_lora` prepared.

    Raises ArtifactError naming what is missing, unexpected or misshapen.
    """
    own = adapter_state_dict(model)
    wrong = [f"{name} is missing" for name in own if name not in tensors]
    wrong += [f"{name} is not expected" for name in tensors if name not in own]
    wrong += [
        f"{name} has shape {list(tensors[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if wrong:
        raise ArtifactError(
            f"the adapter does not fit its base model: {'; '.join(wrong[:5])}", "was it trained on another base?"
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


@torch.no_grad()
def merge(model: CausalLM) -> dict[str, Tensor]:
    """The model's weights with the adapter folded in: fp32, Hugging Face's names, no adapter tensors.

    Without an adapter: the weights as they are, in fp32.
    """
    out: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if path.endswith((".lora_A", ".lora_B", ".token_adapter")):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            out[f"{path}.{name}"] = parameter.detach().float()
        if isinstance(module, LoraLinear | LoraConv1D):
            out[f"{path}.weight"] = module.merged()
        elif isinstance(module, AdaptedEmbedding | AdaptedHead):
            out[f"{path}.weight"] = module.token_adapter.whole(module.weight.float())
    return {name: out[name] for name in model.state_dict() if name in out}
