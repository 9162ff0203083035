"""Pretraining: the model from scratch, the token stream, and the loop over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.artifacts.manifest import Manifest
from gptcli.artifacts.tokens import TokenStream
from gptcli.errors import ArtifactError
from gptcli.inference.generate import generate
from gptcli.inference.sampling import Sampling
from gptcli.job import Job
from gptcli.models.config import LlamaConfig
from gptcli.models.init import init_weights
from gptcli.models.llama import Llama
from gptcli.models.load import load_model, save_model
from gptcli.pretrain.spec import PretrainSpec, tokens_manifest
from gptcli.scoring.language_modelling import bits_per_byte, score_stream
from gptcli.tokenizer import Tokenizer
from gptcli.training.batches import Batch, TokenBatches
from gptcli.training.budget import plan_steps
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.loop import train
from gptcli.training.loss import linear_cross_entropy
from gptcli.training.optimizer import Rates, pretraining_optimizers
from gptcli.training.setup import Setup
from gptcli.training.throughput import flops_per_token


def run(spec: PretrainSpec, job: Job) -> Manifest:
    """Train runs/NAME from its tokens to its last step; goes on where an earlier process stopped.

    Raises ArtifactError when the tokens have no train or val split, and as training.loop.train does.
    """
    setup = Setup.of(spec, job.device, spec.sequences)
    checkpoints = Checkpoints(job, spec.content(), spec.keep)
    checkpoints.adopt(setup)
    tokens = job.project.place("tokens", spec.tokens)
    pretraining = Pretraining(spec, job, setup, tokens)
    if tokens_manifest(spec.tokens, job.project).content_sha256 != job.inputs.entries[0].content_sha256:
        raise ArtifactError(f"tokens/{spec.tokens} was replaced just now", "run the same command again")
    checkpoints.begin()
    steps = plan_steps(
        spec,
        job.place,
        samples=pretraining.data.count,
        sequences=spec.sequences,
        tokens_per_step=spec.global_batch_tokens,
        setup=setup,
        trial=lambda: Pretraining(spec, job, setup, tokens),
    )
    parameters = sum(parameter.numel() for parameter in pretraining.module.parameters())
    facts = {"parameters": parameters, "epochs": steps * spec.sequences / pretraining.data.count}
    return train(pretraining, spec.with_steps(steps), setup, job, checkpoints, facts)


def model_config(spec: PretrainSpec, tokenizer: Tokenizer) -> LlamaConfig:
    """The model's shape under Hugging Face's names; its context is the training's seq_len."""
    return LlamaConfig(
        model_type=spec.architecture,
        vocab_size=tokenizer.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.mlp_width,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        max_position_embeddings=spec.seq_len,
        rope_theta=spec.rope_theta,
        tie_word_embeddings=spec.tie_embeddings,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )


class Pretraining:
    """A Llama-family model learning the next token of a stream."""

    def __init__(self, spec: PretrainSpec, job: Job, setup: Setup, tokens: Path) -> None:
        self.spec, self.job, self.setup = spec, job, setup
        self.tokenizer = Tokenizer.load(tokens / "tokenizer")
        self.data = TokenBatches(
            TokenStream.open(tokens, "train"), spec.seq_len, spec.sequences, self.tokenizer.bos_id, spec.seed
        )
        self.unseen = TokenStream.open(tokens, "val")
        self.module = Llama(model_config(spec, self.tokenizer), spec.dropout)
        init_weights(self.module, torch.Generator().manual_seed(spec.seed), spec.embedding_std)
        self.module.to(setup.device)
        # A tied table is a head as well, which a rate that is right for a look-up alone would blow up.
        embedding_lr = spec.head_lr if spec.tie_embeddings else spec.embedding_lr
        rates = Rates(spec.lr, embedding_lr, spec.head_lr, spec.gain_lr)
        self.optimizers = pretraining_optimizers(
            self.module, spec.optimizer, rates, spec.weight_decay, (spec.beta1, spec.beta2)
        )

    @property
    def flops_per_token(self) -> float:
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        return flops_per_token(self.module.config, parameters, self.spec.seq_len)

    def batches(self, step: int, micro_batch_size: int) -> list[Batch]:
        return self.data.step(step, micro_batch_size)

    def loss(self, batch: Batch) -> Tensor:
        hidden = self.module.hidden(batch.input_ids)
        return linear_cross_entropy(hidden.flatten(0, 1), self.module.head_weight, batch.targets.flatten())

    def validate(self) -> dict[str, Any]:
        score = score_stream(
            self.module,
            self.unseen,
            seq_len=self.spec.seq_len,
            batch_size=self.setup.micro_batch_size,
            bos_id=self.tokenizer.bos_id,
            device=self.setup.device,
            dtype=self.setup.dtype,
            check=self.job.stop.check,
        )
        return {
            "val_loss": round(score.loss, 6),
            "val_bits_per_byte": round(bits_per_byte(score, self.unseen.text_bytes), 6),
            **({"sample": self._sample()} if self.spec.sample_tokens else {}),
        }

    def _sample(self) -> str:
        """What the model writes from the start of a document; the same draw at every validation."""
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        settings = Sampling(temperature=0.8, max_tokens=self.spec.sample_tokens, seed=self.spec.seed)
        with torch.inference_mode():
            return self.tokenizer.decode(list(generate(self.module, [start], settings, {self.tokenizer.eos_id})))

    def write_model(self, directory: Path) -> None:
        save_model(self.module.state_dict(), self.module.config, directory)
        self.tokenizer.copy_to(directory, model_max_length=self.spec.seq_len)

    def read_model(self, directory: Path) -> None:
        self.module.load_state_dict(load_model(directory, device=self.setup.device, checked=True).state_dict())
