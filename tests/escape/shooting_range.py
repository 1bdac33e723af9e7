"""What the attempts aim at, prepared once for each caller, and the launches that run them in batches.

A batch is one launch: all attempts that belong to one caller and one setting. A setting is

- a profile of ``hexe run``, with ``+root`` for ``--uid root``;
- ``PROFILE without PART, PART``: the same, but the parts are taken out (variant.py names them);
- ``host``: no Hexe, as the caller; ``host-root``: no Hexe, as root.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from support import PATIENCE, Caller, read_line

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "inside"))

import kit  # noqa: E402
import main as inside_main  # noqa: E402

from hexe.sandbox.probe import landlock_abi  # noqa: E402

ATTEMPTS = kit.ATTEMPTS
PYTHON = "/usr/bin/python3"
LANDLOCK = max(0, landlock_abi())
NOBODY = 65534
VICTIM = """
import ctypes, os, sys
memory = ctypes.create_string_buffer(os.environ["HEXE_TEST_SECRET"].encode())
print(ctypes.addressof(memory), flush=True)
sys.stdin.read()
"""
CAP_SYS_ADMIN_FOREVER = b"\x01\x00\x00\x02" + (1 << 21).to_bytes(4, "little") * 2 + bytes(8)
_libc = ctypes.CDLL(None, use_errno=True)


class Range:
    """One caller's targets, and what became of the attempts at them."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.cleanup = contextlib.ExitStack()
        self.verdicts: dict[str, dict[str, str]] = {}
        self.by_root = os.geteuid() == 0
        self.cleanup.callback(caller.close)
        try:
            self.base = Path(tempfile.mkdtemp(prefix="hexe-range-", dir="/var/tmp"))
            self.cleanup.callback(shutil.rmtree, self.base)
            self.facts = self._prepare()
        except BaseException:
            self.cleanup.close()
            raise

    # -- targets ------------------------------------------------------------------------------------------------------

    def _prepare(self) -> kit.Facts:
        caller = self.caller
        secret = "secret-" + os.urandom(8).hex()
        self.secret = secret
        self.base.chmod(0o755)
        code = self.base / "code"
        shutil.copytree(HERE / "inside", code, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("outer.py", "variant.py"):
            shutil.copy(HERE / name, code)
        for path in [code, *code.iterdir()]:
            path.chmod(0o755)
        for name in ("writable/middle/keep", "readonly", "elsewhere"):
            caller.mkdir(self.base / name)
        (self.base / "writable").chmod(0o777)  # in minimal root is nobody
        caller.write(self.base / "readonly/kept", "this stays as it is\n")
        caller.write(self.base / "writable/middle/keep/kept", "this stays as it is\n")
        caller.write(self.base / "elsewhere/secret", secret)
        key = 0x48455845 + (os.getpid() << 1 & 0xFFFFF) + caller.is_root
        name = f"hexe-escape-{os.getpid()}-{caller.name}"
        self._listen(secret)
        self._ipc(key, name, secret)
        if self.by_root:
            self._as_root()
        victim, victim_at = self._victim(secret)
        return kit.Facts(
            secret=secret,
            writable=str(self.base / "writable"),
            readonly=str(self.base / "readonly"),
            elsewhere=str(self.base / "elsewhere"),
            other_home=f"/home/{name}",
            victim=victim,
            victim_at=victim_at,
            neighbour=self._neighbour(),
            abstract=name,
            tcp_port=self.tcp_port,
            ipc_key=key,
            shm_name=name,
            key_name=name,
            cache=self._cache(),
            block_device=next((f"/dev/{d.name}" for d in Path("/sys/block").glob("[svn][dv]*")), ""),
        )

    def _listen(self, secret: str) -> None:
        """Three services of the host that give the secret to whoever connects."""
        name = f"hexe-escape-{os.getpid()}-{self.caller.name}"
        tcp = socket.create_server(("127.0.0.1", 0))
        self.tcp_port = int(tcp.getsockname()[1])
        abstract, file = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        abstract.bind("\0" + name)
        path = self.base / "elsewhere/listener"
        file.bind(str(path))
        path.chmod(0o777)
        for server in (tcp, abstract, file):
            server.listen()
            thread = threading.Thread(target=_serve, args=(server, secret.encode()), daemon=True)
            thread.start()
            # Carried out from the last to the first: accept returns when its socket is shut down.
            self.cleanup.callback(server.close)
            self.cleanup.callback(thread.join, PATIENCE)
            self.cleanup.callback(server.shutdown, socket.SHUT_RDWR)

    def _ipc(self, key: int, name: str, secret: str) -> None:
        """System V and POSIX objects of the host, open to everybody."""
        segment = kit.call("shmget", key, 4096, 0o1666)
        self.cleanup.callback(_libc.shmctl, segment, 0, None)
        queue = kit.call("msgget", key, 0o1666)
        self.cleanup.callback(_libc.msgctl, queue, 0, None)
        semaphore = kit.call("semget", key, 1, 0o1666)
        self.cleanup.callback(_libc.semctl, semaphore, 0, 0)
        mask = os.umask(0)
        try:
            os.close(kit.call("mq_open", name.encode(), os.O_RDWR | os.O_CREAT, 0o666, None))
        finally:
            os.umask(mask)
        self.cleanup.callback(_libc.mq_unlink, ("/" + name).encode())
        shared = Path("/dev/shm", name)
        shared.write_text(secret)
        shared.chmod(0o644)
        self.cleanup.callback(shared.unlink)

    def _as_root(self) -> None:
        """What only root can put somewhere: device nodes, setuid and capable programs, another user's home."""
        readonly, caller = self.base / "readonly", self.caller
        os.mknod(readonly / "zero", 0o666 | 0o020000, os.makedev(1, 5))
        (readonly / "zero").chmod(0o666)
        os.mknod(readonly / "block", 0o600 | 0o060000, os.makedev(7, 250))
        os.chown(readonly / "block", caller.uid, caller.gid)
        setuid = readonly / "id-setuid"
        shutil.copy("/usr/bin/id", setuid)
        os.chown(setuid, 4242, 4242)
        setuid.chmod(0o4755)
        capable = readonly / "cat-capable"
        shutil.copy("/bin/cat", capable)
        capable.chmod(0o755)
        os.setxattr(capable, "security.capability", CAP_SYS_ADMIN_FOREVER)
        home = Path(f"/home/hexe-escape-{os.getpid()}-{caller.name}")
        home.mkdir()
        self.cleanup.callback(shutil.rmtree, home)
        home.chmod(0o755)
        (home / "secret").write_text(self.secret)

    def _victim(self, secret: str) -> tuple[int, int]:
        """A process of the host with the uid that the sandbox has on the host."""
        uid = NOBODY if self.caller.is_root else self.caller.uid
        gid = NOBODY if self.caller.is_root else self.caller.gid
        process = subprocess.Popen(
            [PYTHON, "-I", "-S", "-c", VICTIM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"HEXE_TEST_SECRET": secret},
            cwd="/",
            user=uid if self.by_root else None,
            group=gid if self.by_root else None,
            extra_groups=[] if self.by_root else None,
        )
        self.cleanup.callback(_end, process)
        return process.pid, int(read_line(process.stdout))

    def _neighbour(self) -> int:
        running = self.caller.running("--isolation", "sandbox")
        return running.command

    def _cache(self) -> str:
        question = "from hexe.sandbox.filters import cache_directory; print(cache_directory())"
        asking = self.caller.start([self.interpreter, "-c", question])
        answer, _ = asking.communicate(timeout=PATIENCE)
        return str(answer.decode().strip())

    # -- launches -----------------------------------------------------------------------------------------------------

    @property
    def interpreter(self) -> str:
        """The interpreter that runs the installed hexe."""
        return Path(self.caller.script).read_text().splitlines()[0].removeprefix("#!").split()[0]

    def hexe(self, setting: str) -> list[str]:
        """The beginning of a command line, up to ``--isolation PROFILE``, for a setting that uses Hexe."""
        profile, _, parts = setting.partition(" without ")
        profile, _, identity = profile.partition("+")
        options = ["--isolation", profile] + (["--uid", "root"] if identity == "root" else [])
        if parts:
            names = ",".join(part.strip() for part in parts.split(","))
            return [self.interpreter, str(self.base / "code/variant.py"), names, *options]
        return [self.caller.script, "run", *options]

    def command(self, setting: str, names: list[str]) -> list[str]:
        """The command line of a batch."""
        base = str(self.base)
        inside = [PYTHON, "-I", "-S", f"{base}/code/main.py", json.dumps(self.facts._asdict()), *names]
        outer = [PYTHON, "-I", "-S", f"{base}/code/outer.py", self.facts.key_name, self.secret]
        outer.append(f"{base}/elsewhere/secret")
        if setting.startswith("host"):
            return [*outer, *inside]
        binds = []
        if setting.partition(" ")[0].partition("+")[0] not in ("none", "minimal"):
            binds = ["--ro-bind", f"{base}/code", "--bind", f"{base}/writable", "--ro-bind", f"{base}/readonly"]
            binds += ["--ro-bind", f"{base}/writable/middle/keep"]
        return [*outer, *self.hexe(setting), *binds, "--", *inside]

    def run(
        self,
        setting: str,
        options: list[str],
        command: list[str],
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        env: dict[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Run one command in a setting that uses Hexe: its exit status, output and errors."""
        argv = [*self.hexe(setting), *options, "--", *command]
        process = self.caller.start(argv, stdin=stdin, stdout=stdout, env=env)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, (out or b"").decode(), (err or b"").decode()

    def python(
        self,
        setting: str,
        code: str,
        *options: str,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
    ) -> str:
        """Run Python code inside; what it printed to standard error, where a test may have taken the output."""
        status, _, err = self.run(setting, [], [PYTHON, "-I", "-S", "-c", code], stdin, stdout)
        assert status == 0, f"{setting} as {self.caller.name}: {status} {err}"
        return err.strip()

    def verdict(self, setting: str, name: str) -> str:
        """What an attempt came to in a setting. The first question about a setting runs its whole batch."""
        if setting not in self.verdicts:
            self.verdicts[setting] = self._run_batch(setting, names_for(setting))
        return self.verdicts[setting][name]

    def _run_batch(self, setting: str, names: list[str]) -> dict[str, str]:
        command = self.command(setting, names)
        env = {"HEXE_TEST_SECRET": self.secret}
        if setting == "host-root":
            assert self.by_root
            done = subprocess.run(
                command, env={**self.caller.environment, **env}, cwd="/", capture_output=True, check=False
            )
            out, err, code = done.stdout, done.stderr, done.returncode
        else:
            process = self.caller.start(command, env=env)
            out, err = process.communicate(timeout=120)
            code = process.returncode
        assert code == 0, f"the batch {setting!r} of {self.caller.name} ended with {code}: {err.decode()[-2000:]}"
        found = {}
        for line in out.decode().splitlines():
            answer = json.loads(line)
            found[answer["name"]] = answer["verdict"]
        assert sorted(found) == sorted(names), f"the batch {setting!r} didn't answer for all: {err.decode()[-2000:]}"
        return found

    def close(self) -> None:
        """Take everything away again."""
        self.cleanup.close()


def names_for(setting: str) -> list[str]:
    """The attempts that run in a setting: those whose refusal is expected there, and those whose control it is."""
    return [
        name
        for name, attempt in ATTEMPTS.items()
        if (setting in attempt.refusal or any(control.setting == setting for control in attempt.controls))
        and attempt.machine in ("", os.uname().machine)
    ]


def _serve(server: socket.socket, answer: bytes) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError):
            client.sendall(answer)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(PATIENCE)
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


assert inside_main.MODULES, "the table is filled by importing these"
