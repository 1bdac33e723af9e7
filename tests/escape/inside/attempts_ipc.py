"""Talking to the host: sockets of every kind, System V and POSIX IPC, and descriptors that the caller leaked."""

from __future__ import annotations

import os
import socket

from kit import FULL, STRONG, Control, Facts, Refused, attempt, call, found_secret, read

IPC_NAMESPACE = "the ipc namespace"
FAMILIES = "seccomp allows unix, inet, inet6 and netlink route only"
NO_FILTER = "sandbox without seccomp"
CLOSED = "every descriptor but 0, 1, 2 is closed before the exec"


@attempt(
    {"sandbox": "EPERM", "full": "ECONNREFUSED"},
    "default",
    "sandbox without landlock",
    by="Landlock's scope; in full the network namespace",
)
def abstract_socket(facts: Facts) -> str:
    """Connect to an abstract unix socket of the host, as X11 and D-Bus have them."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + facts.abstract)
        return found_secret(client.recv(256).decode(), facts, "the answer")


@attempt("ECONNREFUSED", "sandbox", profiles=FULL, by="the network namespace: its loopback is its own")
def loopback_service(facts: Facts) -> str:
    """Connect to a TCP service on the host's loopback."""
    with socket.create_connection(("127.0.0.1", facts.tcp_port), 5) as client:
        return found_secret(client.recv(256).decode(), facts, "the answer")


@attempt("ENETUNREACH", Control("sandbox", needs="route"), profiles=FULL, by="the network namespace has no route")
def outside_world(facts: Facts) -> str:
    """Find a route to the outside world."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("192.0.2.1", 9))
        return f"from {client.getsockname()[0]}"


@attempt("only lo", "sandbox", profiles=FULL, by="the network namespace")
def network_interfaces(facts: Facts) -> str:
    """List the host's network interfaces."""
    names = [name for _, name in socket.if_nameindex()]
    if names == ["lo"]:
        raise Refused("only lo")
    return " ".join(names)


@attempt("ENOENT", "minimal", by="no mount shows it")
def socket_file(facts: Facts) -> str:
    """Connect to a socket file of the host, as /run/docker.sock is one."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{facts.elsewhere}/listener")
        return found_secret(client.recv(256).decode(), facts, "the answer")


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED EAFNOSUPPORT"), profiles=STRONG, by=FAMILIES)
def vsock(facts: Facts) -> str:
    """An AF_VSOCK socket: it reaches the hypervisor, and no namespace bounds it."""
    socket.socket(40, socket.SOCK_STREAM).close()
    return "an AF_VSOCK socket"


@attempt("EPERM", NO_FILTER, profiles=STRONG, by=FAMILIES)
def netlink_events(facts: Facts) -> str:
    """A netlink socket of another protocol than route: the kernel's device events."""
    socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15).close()
    return "a kobject_uevent socket"


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED (EAFNOSUPPORT|EPROTONOSUPPORT)"), profiles=STRONG, by=FAMILIES)
def netlink_netfilter(facts: Facts) -> str:
    """A netlink socket of netfilter (CVE-2022-34918 and its kin)."""
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).close()
    return "a netfilter socket"


@attempt("EPERM", "full without seccomp, capabilities", profiles=STRONG, by=f"{FAMILIES}; no CAP_NET_RAW")
def packet_socket(facts: Facts) -> str:
    """An AF_PACKET socket, to listen to the wire."""
    socket.socket(17, socket.SOCK_RAW).close()
    return "a packet socket"


@attempt("EPERM", "full without seccomp, capabilities", profiles=STRONG, by=f"{FAMILIES}, and which types")
def packet_socket_by_its_old_name(facts: Facts) -> str:
    """A packet socket as socket(AF_INET, SOCK_PACKET), which the kernel turns into one."""
    socket.socket(socket.AF_INET, 10, 0x0300).close()
    return "a packet socket"


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED EAFNOSUPPORT"), profiles=STRONG, by=FAMILIES)
def crypto_socket(facts: Facts) -> str:
    """An AF_ALG socket: it loads the kernel's cipher modules."""
    socket.socket(38, socket.SOCK_SEQPACKET).close()
    return "an AF_ALG socket"


# -- IPC --------------------------------------------------------------------------------------------------------------


@attempt("ENOENT", "default", profiles=STRONG, by=IPC_NAMESPACE)
def sysv_shared_memory(facts: Facts) -> str:
    """Attach a System V shared memory segment of the host."""
    return f"segment {call('shmget', facts.ipc_key, 0, 0)}"


@attempt("ENOENT", "default", profiles=STRONG, by=IPC_NAMESPACE)
def sysv_queue(facts: Facts) -> str:
    """Open a System V message queue of the host."""
    return f"queue {call('msgget', facts.ipc_key, 0)}"


@attempt("ENOENT", "default", profiles=STRONG, by=IPC_NAMESPACE)
def sysv_semaphore(facts: Facts) -> str:
    """Open a System V semaphore of the host."""
    return f"semaphore {call('semget', facts.ipc_key, 0, 0)}"


@attempt("nothing of it in /proc/sysvipc/shm", "default", profiles=STRONG, by=IPC_NAMESPACE)
def sysv_listing(facts: Facts) -> str:
    """List the host's segments in /proc/sysvipc."""
    if str(facts.ipc_key) in read("/proc/sysvipc/shm").split():
        return "the host's segment is listed"
    raise Refused("nothing of it in /proc/sysvipc/shm")


@attempt("ENOENT", "default", profiles=STRONG, by=IPC_NAMESPACE)
def posix_queue(facts: Facts) -> str:
    """Open a POSIX message queue of the host."""
    return f"queue {call('mq_open', facts.shm_name.encode(), os.O_RDONLY, 0, None)}"


@attempt("ENOENT", "minimal", by="/dev/shm is the sandbox's own")
def posix_shared_memory(facts: Facts) -> str:
    """Open POSIX shared memory of the host."""
    return found_secret(read(f"/dev/shm/{facts.shm_name}"), facts, "/dev/shm")


# -- descriptors that the caller leaked: see outer.py -----------------------------------------------------------------


@attempt(
    "EBADF", "full without closing, landlock", "sandbox without closing, landlock", "default without closing", by=CLOSED
)
def leaked_directory(facts: Facts) -> str:
    """Walk the host's files from a leaked descriptor of /."""
    fd = os.open(facts.elsewhere.lstrip("/") + "/secret", os.O_RDONLY, dir_fd=9)
    return found_secret(os.read(fd, 256).decode(), facts, "the host's files")


@attempt("EBADF", "full without closing", "default without closing", by=CLOSED)
def leaked_high_descriptor(facts: Facts) -> str:
    """Use a leaked descriptor with a number above 1000."""
    return found_secret(os.pread(1500, 256, 0).decode(), facts, "descriptor 1500")


@attempt("EBADF", "full without closing", "default without closing", by=CLOSED)
def leaked_namespace(facts: Facts) -> str:
    """Use a leaked descriptor of the host's mount namespace."""
    return os.readlink("/proc/self/fd/10") if os.fstat(10) else ""


@attempt("only 0 1 2", "full without closing", by=CLOSED)
def any_other_descriptor(facts: Facts) -> str:
    """Look for any descriptor but the standard ones in the command that was started."""
    found = sorted(int(name) for name in os.listdir(f"/proc/{os.getppid()}/fd"))
    # The verdict's pipe is the parent's own, and shows up as one of its descriptors.
    pipes = [fd for fd in found if fd > 2 and not os.readlink(f"/proc/{os.getppid()}/fd/{fd}").startswith("pipe:")]
    if pipes:
        return f"descriptors {pipes}"
    raise Refused("only 0 1 2")
