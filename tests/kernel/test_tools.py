"""What people run all day still works in ``sandbox`` and ``full``: shells, git, compilers, interpreters."""

from __future__ import annotations

import shutil

import pytest

from support import Caller

PROGRAMS: dict[str, tuple[str, str, str]] = {
    # name: (the program that must be installed, the script, the last line of its output)
    "shell": ("bash", "set -e; x=$(printf 'a\\nb\\n' | sort -r | head -1); (sleep 0.01 &) ; wait; echo $x", "b"),
    "git": (
        "git",
        "git init -q r && cd r && echo 1 >f && git add f && git -c user.email=a@b -c user.name=n commit -qm x"
        " && git gc -q && git clone -q . ../copy 2>&1 && git -C ../copy log --format=%s",
        "x",
    ),
    "gcc": ("gcc", "echo 'int main(void){return 7;}' >a.c && gcc -O2 a.c -o a && { ./a; echo $?; }", "7"),
    "make": ("make", "printf 'a: b\\n\\tcp b a\\nb:\\n\\techo made >b\\n' >Makefile && make -s -j2 && cat a", "made"),
    "tar": ("tar", "mkdir d && echo 1 >d/f && tar czf d.tgz d && rm -r d && tar xzf d.tgz && cat d/f", "1"),
    "perl": ("perl", "perl -e 'pipe(R,W); fork || do {print W \"perl\\n\"; exit}; print scalar <R>'", "perl"),
    "venv": (
        "python3",
        "/usr/bin/python3 -m venv --without-pip v"
        " && v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'",
        "True",
    ),
    "processes": (
        "python3",
        "/usr/bin/python3 -c 'import concurrent.futures as f\n"
        "with f.ProcessPoolExecutor(2) as e: print(sum(e.map(abs, [1, -2])))'",
        "3",
    ),
    "asyncio": (
        "python3",
        "/usr/bin/python3 -c 'import asyncio\nasync def go():\n"
        ' p = await asyncio.create_subprocess_exec("echo", "async", stdout=-1)\n'
        " print((await p.communicate())[0].decode())\nasyncio.run(go())'",
        "async",
    ),
    "loopback": (
        "python3",
        '/usr/bin/python3 -c \'import socket\ns = socket.create_server(("127.0.0.1", 0))\n'
        'c = socket.create_connection(s.getsockname()); s.accept()[0].send(b"x"); print(c.recv(1).decode())\'',
        "x",
    ),
    "node": ("node", 'node -e \'new (require("worker_threads").Worker)("console.log(1+1)", {eval: true})\'', "2"),
    "java": (
        "javac",
        "echo 'public class H{public static void main(String[] a)throws Exception{Thread t=new Thread(()->"
        'System.out.println("java"));t.start();t.join();}}\' >H.java && javac H.java && java H',
        "java",
    ),
}


@pytest.mark.parametrize("profile", ["sandbox", "full"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_works(caller: Caller, name: str, profile: str) -> None:
    program, script, expected = PROGRAMS[name]
    if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.skip(f"{program} isn't installed: apt-get install {program}")
    done = caller.hexe("run", "--isolation", profile, "--", "sh", "-c", f"cd /tmp && {script}", timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == expected or done.stdout.strip().split("\n")[-1] == expected, done.stdout


@pytest.mark.parametrize(("profile", "works"), [("sandbox", True), ("full", False)])
def test_a_debugger(caller: Caller, profile: str, works: bool) -> None:
    """strace follows the sandbox's own processes in ``sandbox``; in ``full`` ptrace is refused."""
    if shutil.which("strace") is None:
        pytest.skip("strace isn't installed: apt-get install strace")
    done = caller.hexe("run", "--isolation", profile, "--", "strace", "-f", "-o", "/tmp/log", "true")
    assert (done.returncode == 0) is works
    assert works or "Operation not permitted" in done.stderr
