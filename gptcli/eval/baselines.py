"""What general compressors make of the same documents: the figures a language model has to beat."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from gptcli.runtime.executor import default_workers

XZ = 9 | lzma.PRESET_EXTREME
_GZIP_WINDOW = 31  # zlib's wbits for a gzip header and trailer
_AT_ONCE = 64  # documents


def baselines(
    texts: Iterable[str],
    *,
    check: Callable[[], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[dict[str, float], int]:
    """Bits per UTF-8 byte under `gzip -9` and `xz -9e`, with every document compressed alone and all as one stream.

    Returns the figures (`xz_bits_per_byte` each alone, `xz_bits_per_byte_stream` as one) and the bytes of text.
    Container headers count. `check` is called between groups of documents and may raise.
    """
    sizes = {"gzip_bits_per_byte": 0, "xz_bits_per_byte": 0}
    stream_sizes = {"gzip_bits_per_byte_stream": 0, "xz_bits_per_byte_stream": 0}
    gzip_stream, xz_stream = zlib.compressobj(9, wbits=_GZIP_WINDOW), lzma.LZMACompressor(preset=XZ)
    total = 0
    with ThreadPoolExecutor(default_workers()) as pool:  # both compressors let go of the interpreter's lock
        for group in _groups(texts):
            if check is not None:
                check()
            alone = pool.map(_sizes_alone, group)
            together = b"".join(group)
            total += len(together)
            stream_sizes["gzip_bits_per_byte_stream"] += len(gzip_stream.compress(together))
            stream_sizes["xz_bits_per_byte_stream"] += len(xz_stream.compress(together))
            for gzip_size, xz_size in alone:
                sizes["gzip_bits_per_byte"] += gzip_size
                sizes["xz_bits_per_byte"] += xz_size
            if advance is not None:
                advance(len(group))
    stream_sizes["gzip_bits_per_byte_stream"] += len(gzip_stream.flush())
    stream_sizes["xz_bits_per_byte_stream"] += len(xz_stream.flush())
    return {name: 8 * size / max(total, 1) for name, size in (sizes | stream_sizes).items()}, total


def _groups(texts: Iterable[str]) -> Iterable[list[bytes]]:
    group: list[bytes] = []
    for text in texts:
        group.append(text.encode())
        if len(group) == _AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _sizes_alone(data: bytes) -> tuple[int, int]:
    packer = zlib.compressobj(9, wbits=_GZIP_WINDOW)
    return len(packer.compress(data)) + len(packer.flush()), len(lzma.compress(data, preset=XZ))
