"""Short waits for a core: what a process may ask the scheduler and the interpreter for.

Nothing here needs a privilege, and nothing replaces a real-time priority (docs/reliability.md).
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct

# A thread with shorter slices than the others gets a core sooner when it wakes (Linux 6.12 and
# later, sched(7)): shorter than the usual one of 1.4 ms on two cores, but long enough for a tick,
# which would lose the core in the middle of it otherwise (docs/reliability.md). Nanoseconds.
SLICE = 1_000_000
_SCHED_SETATTR = {'x86_64': 314, 'aarch64': 274, 'riscv64': 274}
# struct sched_attr of linux/sched/types.h: size, policy, flags, nice, priority, runtime (of
# SCHED_OTHER: the slice), deadline, period.
_ATTRIBUTES = struct.Struct('=IIQiIQQQ')


def ask_for_short_slices() -> bool:
    """Ask for them for this thread and those it creates; False if the system knows none.

    Other policies than SCHED_OTHER, a real-time one first of all, are left as they are.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if platform.system() != 'Linux' or number is None:
        return False
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, SLICE, 0, 0)
    return ctypes.CDLL(None, use_errno=True).syscall(number, 0, wanted, 0) == 0


def spare_start_up_from_collection() -> None:
    """Have the garbage collector never again look at what is there now: it takes milliseconds."""
    gc.collect()
    gc.freeze()
