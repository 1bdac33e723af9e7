#!/bin/sh
# The kind of script that one is asked to pipe into a shell. It tries what a hostile one would, and says what it got.
#
# It is harmless: what it writes it removes, what it reads it doesn't send. In a sandbox every line should say
# "refused"; run without one, it shows what such a script can have.
#
# PORT, when set, is a port on 127.0.0.1 where a service of the caller listens.

tried=0
got=0

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bad=$(printf '\033[1;31m') good=$(printf '\033[32m') plain=$(printf '\033[0m')
else
    bad='' good='' plain=''
fi

# attempt WHAT COMMAND [ARG...]: success of the command is the script's success, and the caller's loss.
attempt() {
    what=$1
    shift
    tried=$((tried + 1))
    if answer=$("$@" 2>&1); then
        got=$((got + 1))
        show "$what" "$bad" "GOT IT: $(first_line "$answer")"
    else
        show "$what" "$good" "refused: $(first_line "$answer")"
    fi
}

show() {
    printf '  %-42s %s%s%s\n' "$1" "$2" "$3" "$plain"
}

# The last part of the first line: "cat: /etc/shadow: Permission denied" becomes "Permission denied".
first_line() {
    printf '%s\n' "$1" | sed -n '1{s/.*: //;s/[[:cntrl:]].*//;p;}' | cut -c1-48
}

nothing() {
    echo "${1:-nothing there}"
    return 1
}

ssh_keys() {
    for place in "$HOME/.ssh" /root/.ssh /home/*/.ssh; do
        ls "$place"/* 2>/dev/null && return
    done
    nothing "no .ssh anywhere"
}

secrets_in_environment() {
    env | grep -iE '^[A-Z_]*(TOKEN|SECRET|PASSWORD|API_KEY)[A-Z_]*=' || nothing "no such variable"
}

# Without starting a process: what is left but 1, this shell and the subshell of the attempt is somebody else's.
other_processes() {
    others=0
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        if [ "$pid" != 1 ] && [ "$pid" != "$$" ] && [ -d "$entry" ]; then
            others=$((others + 1))
        fi
    done
    [ "$others" -gt 1 ] && echo "$others processes" || nothing "only its own are visible"
}

interfaces() {
    names=$(sed -n 's/^ *\([^: ]*\):.*/\1/p' /proc/net/dev | grep -v '^lo$' | tr '\n' ' ')
    [ -n "$names" ] && echo "$names" || nothing "no interface but loopback"
}

connect() {
    if command -v python3 >/dev/null; then
        python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 3); print("connected")' \
            "$1" 2>&1 | tail -n 1 | grep connected || nothing "Connection refused"
    else
        bash -c 'exec 3<>/dev/tcp/127.0.0.1/$0 && echo connected' "$1"
    fi
}

write_into() {
    file=$1/.hexe-demo-$$
    : >"$file" && rm -f "$file" && echo "written"
}

kernel_setting() {
    read -r value </proc/sys/kernel/core_pattern
    # What is written is what was there.
    printf '%s\n' "$value" >/proc/sys/kernel/core_pattern && echo "written"
}

remount() {
    mount -o remount,bind,rw /usr && echo "done"
}

raw_disk() {
    node=${TMPDIR:-/tmp}/hexe-demo-disk-$$
    mknod "$node" b 254 0 && dd if="$node" of=/dev/null bs=512 count=1 && rm -f "$node" && echo "read"
}

push_keys() {
    # A space: if it works, it appears at the caller's next prompt.
    python3 - <<'END' 2>&1 | tail -n 1 | grep pushed || nothing "Operation not permitted"
import fcntl, sys, termios
try:
    terminal = open("/dev/tty", "wb")
except OSError:
    terminal = sys.stderr
fcntl.ioctl(terminal, 0x5412, b" ")
print("pushed")
END
}

keyring() {
    # 250 is keyctl(2) on x86_64, 219 on the rest: describe the session keyring of whoever started this.
    python3 - <<'END' 2>&1 | tail -n 1 | grep described || nothing "Operation not permitted"
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(256)
number = 250 if platform.machine() == "x86_64" else 219
if libc.syscall(number, 6, -3, buffer, 256) < 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
print("described", buffer.value.decode())
END
}

echo "An untrusted script, as $(id -un 2>/dev/null || id -u) on $(uname -n), in ${HEXE_ISOLATION:-no sandbox}:"
echo
show "tried" "" "got"
attempt "read the caller's SSH keys" ssh_keys
attempt "read /root" ls /root
attempt "read /etc/shadow" head -n 1 /etc/shadow
attempt "find secrets in the environment" secrets_in_environment
attempt "read the environment of its parent" cat "/proc/$PPID/environ"
attempt "walk into the parent's root directory" ls "/proc/$PPID/root/"
attempt "see other processes" other_processes
attempt "find a network" interfaces
[ -z "${PORT:-}" ] || attempt "connect to a service on localhost" connect "$PORT"
attempt "write into /etc" write_into /etc
attempt "replace a program in /usr/bin" write_into /usr/bin
attempt "write into /var/tmp" write_into /var/tmp
attempt "change a setting of the kernel" kernel_setting
attempt "remount /usr writable" remount
attempt "get rid of a mount" umount /proc
attempt "become root in a new user namespace" unshare -r id -u
attempt "read the raw disk" raw_disk
attempt "read the kernel's log" dmesg
attempt "reach the Docker daemon" ls /var/run/docker.sock
if command -v python3 >/dev/null; then
    attempt "push keys into the terminal" push_keys
    attempt "look into the caller's keyring" keyring
fi
echo
echo "$got of $tried attempts got something."

# Last, two things that it may do, and that are gone with the sandbox: whoever started this can look for them.
echo 'echo "hello from the untrusted script"' >>"$HOME/.hexe-demo-profile"
sleep "${LINGER:-0}" >/dev/null 2>&1 &
exit "$got"
