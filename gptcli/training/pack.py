"""Which packing index to make, as a recipe says it; loads neither Arrow nor Numba."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gptcli.spec import Spec

SMALLEST_ROW, LARGEST_ROW = 16, 1 << 20  # tokens

How = Literal["bestfit", "concat"]
Split = Literal["train", "val", "test"]


def _each_once(splits: list[Split]) -> list[Split]:
    for split in splits:
        if splits.count(split) > 1:
            raise ValueError(f"{split} stands in it twice")
    return splits


class Pack(Spec):
    """One way to fill rows of seq_len tokens with a split's documents; see training/packing.py."""

    how: How = Field(
        "bestfit",
        description="bestfit: documents beside each other, cut only where longer than a row, a little padding; "
        "concat: end to end, cut where a row ends, no padding",
    )
    seq_len: int = Field(ge=SMALLEST_ROW, le=LARGEST_ROW, description="tokens a row")
    seed: int = Field(0, ge=0, lt=1 << 63, description="decides the order")
    splits: Annotated[list[Split], AfterValidator(_each_once)] = Field(
        ["train"], min_length=1, description="the splits to pack: train, val, test"
    )


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, dict) else given


def _no_two_alike(packs: list[Pack]) -> list[Pack]:
    seen: set[tuple[str, str, int, int]] = set()
    for pack in packs:
        for split in pack.splits:
            key = (split, pack.how, pack.seq_len, pack.seed)
            if key in seen:
                raise ValueError(
                    f"two entries pack {split} alike (how = {pack.how}, seq_len = {pack.seq_len}, seed = {pack.seed})"
                )
            seen.add(key)
    return packs


# A single table stands for a list of one.
Packs = Annotated[list[Pack], BeforeValidator(_as_list), AfterValidator(_no_two_alike)]
