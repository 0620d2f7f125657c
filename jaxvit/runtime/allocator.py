"""The C library's memory allocator, told to keep what a training step frees: the next step asks for the same again."""

import ctypes
import os

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory; True where it did. JAXVIT_MALLOC=default leaves it alone.

    On the CPU a step's temporaries are one block of some hundred MB. Taken from the kernel anew each time, every
    page of it is cleared and mapped again. A thread's own arena gives such a block back whatever it is told, and XLA
    runs a step in a thread: so threads share the one arena, which has to be said before they start. The process then
    keeps its peak size until it ends.
    """
    if os.environ.get("JAXVIT_MALLOC") == "default" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc
        return False
    return all(bool(mallopt(*pair)) for pair in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)))
