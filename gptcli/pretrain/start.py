"""What training starts from: weights drawn from the seed, in the sizes of the spec, or another model's."""

from __future__ import annotations

import torch

from gptcli.artifacts.locations import ModelRef, resolve_model
from gptcli.errors import ArtifactError, SpecError
from gptcli.job import Job
from gptcli.models.family import CausalLM, ModelConfig, build_model, sized_config
from gptcli.models.init import init_weights
from gptcli.models.load import load_model
from gptcli.pretrain.spec import PretrainSpec
from gptcli.tokenizer import Tokenizer


def starting_model(spec: PretrainSpec, job: Job, tokenizer: Tokenizer) -> CausalLM:
    """The model before its first step, fp32 on the CPU, in training mode.

    Raises SpecError or ArtifactError when `spec.base` is no whole model, has another tokenizer than the tokens, or a
    shorter context than seq_len.
    """
    if spec.base:
        return _continued(spec, job, tokenizer)
    model = build_model(model_config(spec, tokenizer), spec.dropout)
    init_weights(model, torch.Generator().manual_seed(spec.seed), spec.embedding_std)
    return model


def model_config(spec: PretrainSpec, tokenizer: Tokenizer) -> ModelConfig:
    """The shape under Hugging Face's names; the model's context is the training's seq_len."""
    return sized_config(
        spec.architecture,
        vocab_size=tokenizer.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.mlp_width,
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        max_positions=spec.seq_len,
        rope_theta=spec.rope_theta,
        tie_embeddings=spec.tie_embeddings,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        logit_softcap=spec.logit_softcap,
    )


def _continued(spec: PretrainSpec, job: Job, tokenizer: Tokenizer) -> CausalLM:
    base = resolve_model(job.project, spec.base)
    if base.kind == "adapter":
        raise ArtifactError(
            f"{spec.base} is an adapter, not a whole model",
            f"gptcli export {spec.base} --to hf merges it; then --set base=exports/main",
        )
    loaded = load_model(base.directory)
    _same_tokenizer(spec, base, job, tokenizer, loaded.config.vocab_size)
    longest = loaded.config.max_position_embeddings
    if spec.seq_len > longest:
        raise SpecError(
            f"seq_len={spec.seq_len} is longer than the context of {spec.base}, {longest} tokens",
            f"--set seq_len={longest}",
        )
    model = build_model(loaded.config, spec.dropout)
    model.load_state_dict(loaded.state_dict())
    return model


def _same_tokenizer(spec: PretrainSpec, base: ModelRef, job: Job, ours: Tokenizer, vocab_size: int) -> None:
    """The tokens' ids must mean to the base what they mean here."""
    place = job.project.relative(base.directory)
    hint = f"gptcli tokenize --name other --set tokenizer={place}, then --set tokens=other"
    if ours.vocab_size > vocab_size:
        raise SpecError(
            f"tokens/{spec.tokens} have {ours.vocab_size} different ids, {spec.base} knows {vocab_size}", hint
        )
    theirs = Tokenizer.load(base.directory)
    for token_id in range(min(ours.vocab_size, theirs.vocab_size)):
        if ours.piece(token_id) != theirs.piece(token_id):
            raise SpecError(
                f"tokens/{spec.tokens} and {spec.base} have different tokenizers: id {token_id} is "
                f"{ours.piece(token_id)!r} here and {theirs.piece(token_id)!r} there",
                hint,
            )
