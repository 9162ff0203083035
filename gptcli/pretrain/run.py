"""Pretraining: the model, the token stream, and the loop over them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptcli.artifacts.manifest import Manifest, verify_files
from gptcli.artifacts.tokens import TokenStream
from gptcli.console import human_bytes
from gptcli.errors import ArtifactError, ResourceError
from gptcli.inference.generate import generate
from gptcli.inference.sampling import Sampling
from gptcli.job import Job
from gptcli.models.load import load_model, save_model
from gptcli.models.weights import read_tensors, write_tensors
from gptcli.pretrain.rates import peak_rates
from gptcli.pretrain.reference import reference_for
from gptcli.pretrain.spec import PretrainSpec, disk_needed, tokens_manifest
from gptcli.pretrain.start import starting_model
from gptcli.scoring.language_modelling import TokenScore, bits_per_byte, score_stream
from gptcli.tokenizer import Tokenizer
from gptcli.training.arena import Arena, Average, Replica
from gptcli.training.batches import Batch, TokenBatches
from gptcli.training.budget import plan_steps
from gptcli.training.checkpoints import Checkpoints
from gptcli.training.loop import train
from gptcli.training.loss import linear_cross_entropy
from gptcli.training.microbatch import measured
from gptcli.training.open_rows import open_rows
from gptcli.training.optimizer import pretraining_optimizers
from gptcli.training.prefetch import ahead
from gptcli.training.rows import TrainingRows
from gptcli.training.saving import copied
from gptcli.training.setup import Setup
from gptcli.training.startup import Start
from gptcli.training.throughput import flops_per_token

LEARNING = "trainer/weights.safetensors"  # the weights that learn, where an average of them is the model


def run(spec: PretrainSpec, job: Job) -> Manifest:
    """Train runs/NAME from its tokens to its last step; goes on where an earlier process stopped.

    Raises ArtifactError when the tokens have no train or val split, and as training.loop.train does.
    """
    setup = Setup.of(spec, job.device, spec.sequences, spec.ranks, spec.compile)
    checkpoints = Checkpoints(job, spec.content(), spec.keep, spec.keep_every)
    goes_on = checkpoints.adopt(setup)
    tokens = job.project.place("tokens", spec.tokens)
    _require_sound_tokens(spec, job, tokens)
    pretraining = Pretraining(spec, job, setup, tokens)
    if setup.device.type == "cuda" and spec.micro_batch_size == "auto" and not goes_on:
        setup.micro_batch_size = measured(
            setup.device,
            pretraining.data.step,
            pretraining.backward,
            pretraining.replica.module,
            spec.sequences,
        )
    _require_same_tokens(spec, job)  # those that were just opened
    checkpoints.begin()
    steps = plan_steps(
        spec,
        job,
        samples=pretraining.data.count,
        sequences=spec.sequences,
        tokens_per_step=spec.global_batch_tokens,
        setup=setup,
        trial=lambda: Pretraining(spec, job, setup, tokens),
    )
    _require_disk(spec.with_steps(steps), job)
    parameters = sum(parameter.numel() for parameter in pretraining.module.parameters())
    facts = {"parameters": parameters, "epochs": steps * spec.sequences / pretraining.data.count}
    reference = reference_for(spec, job.project)
    expected = reference.tells if reference is not None else None
    check = pretraining.start().check
    return train(pretraining, spec.with_steps(steps), setup, job, checkpoints, facts, check, expected)


def _require_same_tokens(spec: PretrainSpec, job: Job) -> Manifest:
    """The tokens' manifest; ArtifactError unless they are those that were there when the stage began."""
    manifest = tokens_manifest(spec.tokens, job.project)
    if manifest.content_sha256 != job.inputs.entries[0].content_sha256:
        raise ArtifactError(f"tokens/{spec.tokens} was replaced just now", "run the same command again")
    return manifest


def _require_disk(spec: PretrainSpec, job: Job) -> None:
    """ResourceError unless the checkpoints fit that so many steps keep for good: another budget told of no steps."""
    need, free = disk_needed(spec, job.project, job.inputs), shutil.disk_usage(job.project.root).free
    if spec.keep_every and need > free:
        raise ResourceError(
            f"the checkpoints of {spec.steps:,} steps need about {human_bytes(need)} of disk, {human_bytes(free)} are "
            "free",
            "a larger keep_every keeps fewer",
        )


def _require_sound_tokens(spec: PretrainSpec, job: Job, tokens: Path) -> None:
    """ArtifactError unless every byte of the tokens is what their manifest says."""
    with job.stop.at_once():  # over a gigabyte a second, and nothing to save yet
        problems = verify_files(tokens, _require_same_tokens(spec, job))
    if problems:
        raise ArtifactError(
            f"tokens/{spec.tokens} is damaged: {problems[0]}", f"gptcli tokenize --name {spec.tokens} --force"
        )


class Pretraining:
    """A model learning the next token of a stream."""

    def __init__(self, spec: PretrainSpec, job: Job, setup: Setup, tokens: Path) -> None:
        self.spec, self.job, self.setup = spec, job, setup
        self.tokenizer = Tokenizer.load(tokens / "tokenizer")
        self.data = TokenBatches(self._open_rows(tokens), spec.sequences, spec.seed)
        self.ahead = ahead(self.data, spec.sequences, setup.device)
        self.unseen = TokenStream.open(tokens, "val")
        self.module = starting_model(spec, job, self.tokenizer).to(setup.device)
        self.arena = Arena(self.module, setup.ranks, setup.allocate)
        self.replica = Replica(self.arena, setup.dtype, setup.allocate)
        self.replica.module.checkpoint_activations = spec.checkpoint_activations
        self.hidden: Callable[..., Tensor] = self.replica.module.hidden
        self.average = Average(self.arena, spec.ema, setup.allocate) if spec.ema else None
        self.optimizers = pretraining_optimizers(
            self.module,
            spec.optimizer,
            peak_rates(spec, self.module.config),
            spec.weight_decay,
            (spec.beta1, spec.beta2),
            setup.dtype,
            setup.allocate,
        )

    @property
    def flops_per_token(self) -> float:
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        return flops_per_token(self.module.config, parameters, self.spec.seq_len)

    @property
    def samples(self) -> int:
        return self.spec.sequences

    def batches(self, first_sample: int, micro_batch_size: int) -> list[Batch]:
        return self.ahead.step(first_sample, micro_batch_size)

    def _open_rows(self, tokens: Path) -> TrainingRows:
        return open_rows(
            tokens,
            self.tokenizer,
            packing=self.spec.packing,
            document_mask=self.spec.document_mask,
            seq_len=self.spec.seq_len,
            seed=self.spec.seed,
            check=self.job.stop.check,
        )

    def begin(self, rank: int) -> None:
        self.replica.collect(rank)
        self.replica.module.train()
        if self.setup.compiled:
            self.hidden = torch.compile(self.hidden, dynamic=False)

    def backward(self, batch: Batch) -> Tensor:
        return self._backward(batch, self.hidden, self.replica.module)

    def plain_backward(self, batch: Batch) -> Tensor:
        """The same by the masters, in fp32 and without operations of our own."""
        self.module.eval()
        return self._backward(batch, self.module.hidden, self.module)

    def _backward(self, batch: Batch, compute: Callable[..., Tensor], model: Any) -> Tensor:
        hidden = compute(batch.input_ids, positions=batch.positions, starts=batch.starts)
        objective, nats = linear_cross_entropy(
            hidden.flatten(0, 1),
            model.head_weight,
            batch.targets.flatten(),
            z_loss=self.spec.z_loss,
            label_smoothing=self.spec.label_smoothing,
            softcap=model.softcap,
        )
        objective.backward()  # type: ignore[no-untyped-call]
        return nats

    def updated(self, names: list[str]) -> None:
        self.replica.refresh(names)
        if self.average is not None:
            self.average.follow(names)

    def start(self) -> Start:
        """What is looked at before the first step."""
        return Start(
            computes=self.replica.module,
            refresh=self.replica.refresh,
            plain=self.plain_backward,
            vocab_size=self.module.config.vocab_size,
            tokenizer_size=self.tokenizer.vocab_size,
            from_scratch=not self.spec.base,
            dropout=self.spec.dropout > 0,
            warn=self.job.progress.warn,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The averaged weights, where there are any."""
        if self.average is None:
            yield
            return
        self.average.swap()
        self.replica.refresh()
        try:
            yield
        finally:
            self.average.swap()
            self.replica.refresh()

    def measure(self, rank: int, ranks: int, check: Callable[[], None]) -> TokenScore:
        return score_stream(
            self.replica.module,
            self.unseen,
            seq_len=self.spec.seq_len,
            batch_size=self.setup.micro_batch_size,
            bos_id=self.tokenizer.bos_id,
            device=self.setup.device,
            dtype=self.setup.dtype,
            check=check,
            share=(rank, ranks),
        )

    def validate(self, measured: list[TokenScore]) -> dict[str, Any]:
        score = sum(measured, TokenScore())
        return {
            "val_loss": round(score.loss, 6),
            "val_bits_per_byte": round(bits_per_byte(score, self.unseen.text_bytes), 6),
            **({"sample": self._sample()} if self.spec.sample_tokens and math.isfinite(score.loss) else {}),
        }

    def _sample(self) -> str:
        """What the model writes from the start of a document; the same draw at every validation."""
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        settings = Sampling(temperature=0.8, max_tokens=self.spec.sample_tokens, seed=self.spec.seed)
        self.module.eval()
        with torch.inference_mode():
            return self.tokenizer.decode(list(generate(self.module, [start], settings, {self.tokenizer.eos_id})))

    def snapshot(self) -> Callable[[Path], None]:
        """The weights that are shown; with an average the learning ones lie beside the optimizers' state."""
        with self.shown():
            weights = copied(self.module.state_dict())
            learning = copied(self.average.state()) if self.average is not None else {}

        def write(directory: Path) -> None:
            save_model(weights, self.module.config, directory)
            if learning:
                write_tensors(directory / LEARNING, learning)
            self.tokenizer.copy_to(directory, model_max_length=self.spec.seq_len)

        return write

    def read_model(self, directory: Path) -> None:
        self.module.load_state_dict(load_model(directory, device=self.setup.device, checked=True).state_dict())
        if self.average is not None:
            self.average.load_state(read_tensors(directory / LEARNING, self.setup.device))
            self.average.swap()
        self.replica.refresh()
