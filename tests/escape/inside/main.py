"""Run attempts one by one, each in a process of its own, and print a line of JSON for each: inside, or in a control."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import attempts_devices
import attempts_files
import attempts_identity
import attempts_ipc
import attempts_kernel
import attempts_mounts
import attempts_proc
import attempts_terminal
from kit import ATTEMPTS, Facts, Refused, private_mounts

MODULES = (
    attempts_devices,
    attempts_files,
    attempts_identity,
    attempts_ipc,
    attempts_kernel,
    attempts_mounts,
    attempts_proc,
    attempts_terminal,
)
SECONDS = 10


def verdict_of(name: str, facts: Facts) -> str:
    """What one attempt came to: ESCAPED with what it got, or REFUSED with the errno or the observation."""
    try:
        return f"ESCAPED {ATTEMPTS[name].run(facts)}"
    except OSError as error:
        return f"REFUSED {errno.errorcode.get(error.errno or 0, str(error.errno))}"
    except Refused as refused:
        return f"REFUSED {refused}"
    except BaseException as error:  # noqa: BLE001 - a mistake in the attempt is no refusal
        return f"BROKEN {type(error).__name__}: {error}"


def run_one(name: str, facts: Facts) -> str:
    """The verdict of an attempt in a process of its own; DIED when that process ended without one."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(SECONDS)
        private_mounts()
        os.write(writing, verdict_of(name, facts).encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(writing)
    text = b""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while poll.poll(SECONDS * 1500):
        part = os.read(reading, 4096)
        if not part:
            break
        text += part
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    return text.decode("utf-8", "replace") or f"DIED with status {status}"


def main() -> None:
    facts = Facts(**json.loads(sys.argv[1]))
    for name in sys.argv[2:]:
        print(json.dumps({"name": name, "verdict": run_one(name, facts)}), flush=True)


if __name__ == "__main__":
    main()
