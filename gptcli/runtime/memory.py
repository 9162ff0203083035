"""Keep freed memory in the process, so that a training step reuses its pages instead of faulting in new ones."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to serve large blocks from its heap and never to give them back; whether it took it.

    By default every tensor of 128 KiB to 32 MiB and over is a fresh mapping whose pages the kernel zeroes at the
    first touch: tens of thousands of page faults a step. Elsewhere than on Linux with glibc nothing is done.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    taken = [mallopt(name, value) == 1 for name, value in settings]  # each is set, whatever became of the others
    return all(taken)
