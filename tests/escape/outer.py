"""A careless caller: run as one, it puts a secret into its session keyring, leaks descriptors, and starts a command.

usage: python3 outer.py KEY-NAME SECRET FILE COMMAND [ARG...]
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys

X86_64 = platform.machine() == "x86_64"
ADD_KEY, KEYCTL = (248, 250) if X86_64 else (217, 219)
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SETPERM = 1, 5
SESSION_KEYRING = -3
EVERYTHING_FOR_EVERYBODY = 0x3F3F3F3F


def keep_a_secret(name: str, secret: str) -> None:
    """A new session keyring with one key in it, which whoever inherits the keyring can read."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    if call(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None) == -1:
        return  # a kernel without keys: the attempts on them say so
    key = call(ADD_KEY, b"user", name.encode(), secret.encode(), len(secret), ctypes.c_long(SESSION_KEYRING))
    if key == -1:
        raise OSError(ctypes.get_errno(), "add_key")


def leak() -> None:
    """A directory, a namespace and a file, at numbers that the attempts know, all without close-on-exec."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    for path, number in (("/", 9), ("/proc/self/ns/mnt", 10), (sys.argv[3], 1500)):
        fd = os.open(path, os.O_RDONLY)
        os.dup2(fd, number)
        if fd != number:
            os.close(fd)


if __name__ == "__main__":
    keep_a_secret(sys.argv[1], sys.argv[2])
    leak()
    os.execv(sys.argv[4], sys.argv[4:])
