from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gptcli.artifacts.tokens import TokenStream
from gptcli.models.config import Gpt2Config, LlamaConfig, ModelConfig
from gptcli.models.family import CausalLM, build_model
from gptcli.models.load import load_model
from gptcli.scoring.calibration import Calibration
from gptcli.scoring.documents import CORRECT, NATS, TOKENS, DocumentSums
from gptcli.scoring.language_modelling import score_stream
from gptcli.scoring.windows import document_windows, score_windows, sliding_windows
from gptcli.tokenizer import Tokenizer

BOS, EOS = 1, 2
CPU = torch.device("cpu")
LENGTHS = (9, 2, 0, 30, 8, 17, 3, 16, 25, 1)
CONFIGS: dict[str, ModelConfig] = {
    "llama": LlamaConfig("qwen3", 50, 16, 32, 2, 2, 1, 8, 32),
    "gpt2": Gpt2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2),
}


def tiny(kind: str) -> CausalLM:
    torch.manual_seed(0)
    return build_model(CONFIGS[kind]).eval()


def documents(bos: int | None = BOS) -> list[list[int]]:
    draw = np.random.default_rng(0)
    found = [draw.integers(3, 50, length).tolist() for length in LENGTHS]
    return [[*([] if bos is None else [bos]), *ids][:length] for ids, length in zip(found, LENGTHS, strict=True)]


def stream_of(texts: list[list[int]]) -> TokenStream:
    return TokenStream.of_documents([np.array(ids, np.uint32) for ids in texts], [3 * len(ids) for ids in texts])


def predicted(model: CausalLM, ids: list[int]) -> list[tuple[float, bool]]:
    """Nats of each token but the first, and whether it was the likeliest; one sequence alone."""
    if len(ids) < 2:
        return []
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    return [(-float(row[token]), int(row.argmax()) == token) for row, token in zip(logits, ids[1:], strict=True)]


def collected(model: CausalLM, stream: TokenStream, batches: object, bos: int | None = BOS) -> DocumentSums:
    sums = DocumentSums(stream.bounds)
    score_windows(model, batches, [sums], bos_id=bos, device=CPU, dtype=torch.float32)  # type: ignore[arg-type]
    return sums


def alone(model: CausalLM, ids: list[int], seq_len: int, prefix: int) -> list[tuple[float, bool]]:
    """A document by itself: windows of which the last is full, each token from the latest that has it anew."""
    ids = ids if ids[:1] == [prefix] else [prefix, *ids]
    found: list[tuple[float, bool]] = []
    while len(found) < len(ids) - 1:
        end = min(len(found) + seq_len, len(ids) - 1)
        window = ids[max(end - seq_len, 0) : end + 1]
        found += predicted(model, window)[-(end - len(found)) :]
    return found


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("bos", [BOS, None])
def test_each_document_alone(kind: str, bos: int | None) -> None:
    model, texts = tiny(kind), documents(bos)
    stream = stream_of(texts)
    found = collected(model, stream, document_windows(stream, 8, 24, bos, EOS), bos).sums
    for number, ids in enumerate(texts):
        wanted = alone(model, ids, 8, EOS if bos is None else bos)
        assert found[TOKENS, number] == len(wanted) == max(len(ids) - (bos is not None), 0)
        assert found[NATS, number] == pytest.approx(sum(nats for nats, _ in wanted), abs=1e-4)
        assert found[CORRECT, number] == sum(right for _, right in wanted)


def test_a_document_alone_does_not_depend_on_its_batch() -> None:
    model, texts = tiny("llama"), documents()
    stream = stream_of(texts)
    found = [collected(model, stream, document_windows(stream, 8, size, BOS, EOS)).sums for size in (1, 20, 1000)]
    turned = stream_of(texts[::-1])
    found.append(collected(model, turned, document_windows(turned, 8, 50, BOS, EOS)).sums[:, ::-1])
    for other in found[1:]:
        assert np.abs(other[NATS] - found[0][NATS]).max() < 1e-4
        assert np.array_equal(other[TOKENS:], found[0][TOKENS:])


@pytest.mark.parametrize("length", [0, 1, 2, 8, 9, 10, 12, 13, 40, 41])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_sliding_windows_predict_every_token_once_from_enough(length: int, stride: int) -> None:
    model = tiny("llama")
    ids = np.random.default_rng(length).integers(3, 50, length).tolist()
    stream = stream_of([ids[:7], ids[7:]])
    wanted = np.zeros(2)
    end = 0  # of what is predicted
    for start in range(0, length, stride):
        part = predicted(model, ids[start : start + 9])
        new = part[max(end - start, 0) :]
        for place, (nats, _) in enumerate(new, start + len(part) - len(new) + 1):
            assert place - start >= min(place, 8 - stride)  # the context it has
            wanted[int(place >= 7)] += nats
        end = max(end, start + len(part))
    for batch_size in (1, 3):
        found = collected(model, stream, sliding_windows(stream, 8, stride, batch_size))
        assert found.score.tokens == max(length - 1, 0)
        assert found.sums[NATS] == pytest.approx(wanted, abs=1e-4)


def test_a_stride_of_a_whole_window_is_the_one_rule() -> None:
    model, stream = tiny("gpt2"), stream_of(documents())
    sums = DocumentSums(stream.bounds)
    score = score_stream(
        model, stream, seq_len=8, batch_size=4, bos_id=BOS, device=CPU, dtype=torch.float32, collectors=[sums]
    )
    found = collected(model, stream, sliding_windows(stream, 8, 8, 4))
    assert np.allclose(found.sums, sums.sums, atol=1e-5) and found.score.tokens == score.tokens
    assert sums.score.nats == pytest.approx(score.nats, rel=1e-12)


def test_what_is_collected_changes_no_bit_and_knows_whose_token_it_is() -> None:
    model, texts = tiny("llama"), documents()
    stream = stream_of(texts)
    settings = {"seq_len": 8, "batch_size": 3, "bos_id": BOS, "device": CPU, "dtype": torch.float32}
    plain = score_stream(model, stream, **settings)  # type: ignore[arg-type]
    sums = DocumentSums(stream.bounds)
    assert score_stream(model, stream, **settings, collectors=[sums, Calibration()]) == plain  # type: ignore[arg-type]
    ids = [token for text in texts for token in text]
    owners = [number for number, text in enumerate(texts) for _ in text]
    wanted = np.zeros((2, len(texts)))
    for start in range(0, len(ids) - 1, 8):
        for place, (nats, _) in enumerate(predicted(model, ids[start : start + 9]), start + 1):
            if ids[place] != BOS:
                wanted[:, owners[place]] += nats, 1
    assert np.allclose(sums.sums[:2], wanted, atol=1e-4)
    assert (sums.score.tokens, sums.score.correct, sums.score.correct_top5) == (
        plain.tokens,
        plain.correct,
        plain.correct_top5,
    )


def test_a_trained_model_reads_stories_alone_better_than_in_a_stream(data_dir: Path) -> None:
    place = data_dir / "stories260K-hf"
    model, tokenizer = load_model(place, device=CPU, dtype=torch.float32), Tokenizer.load(place)
    stories = (data_dir / "tinystories-sample" / "tinystories_sample.txt").read_text().split("<|endoftext|>")[:3]
    texts = [tokenizer.document(story.strip()) for story in stories]
    stream = stream_of(texts)
    batches = list(document_windows(stream, 256, 1024, tokenizer.bos_id, tokenizer.eos_id))
    found = collected(model, stream, iter(batches), tokenizer.bos_id)
    wanted = [alone(model, ids, 256, tokenizer.bos_id or 0) for ids in texts]
    assert found.sums[NATS] == pytest.approx([sum(nats for nats, _ in each) for each in wanted], abs=1e-2)
    assert found.sums[CORRECT].tolist() == [sum(right for _, right in each) for each in wanted]
    sliding = collected(model, stream, sliding_windows(stream, 256, 128, 4), tokenizer.bos_id).score
    windows = collected(model, stream, sliding_windows(stream, 256, 256, 4), tokenizer.bos_id).score
    # The more it sees of a story, the better; and it was trained on stories that stand alone.
    assert max(found.score.loss, sliding.loss) < windows.loss < 2
    assert all(batch.ids.shape[1] <= 257 for batch in batches)
