"""Run a program that is killed when its parent dies: `python die_with_parent.py PARENT_PID PROGRAM ARGUMENT…`

The program replaces this process (execve keeps the parent-death signal), so its pid is the one that was
spawned. A wrapper instead of `preexec_fn`, which may deadlock in a process that has threads. On systems
without `PR_SET_PDEATHSIG` the program simply runs. A file of its own, because it runs as a script.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def _arm(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was armed
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_parent(command: list[str]) -> list[str]:
    """Return the command line that runs `command` until this process dies.

    The signal follows the *thread* that spawns: spawn from one that lives as long as the process.
    """
    # -I and -S make the wrapper start in 10 ms; the program keeps the whole environment.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    if sys.platform == "linux":
        _arm(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # the whole purpose
