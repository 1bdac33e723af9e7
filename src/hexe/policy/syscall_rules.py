"""Which system calls a sandboxed program may make, as data, with a reason on each line.

A name is decided exactly once: in a group of ``ALLOWED``, in ``DEBUGGING``, or in
``REFUSED``. Where the arguments matter, ``ALLOWED_WHERE`` opens a refused call for
some of them and ``REFUSED_WHERE`` closes an allowed one. A number that no name here
stands for (a call newer than this file, or than the host's libseccomp) gets ENOSYS,
which is what an older kernel says: programs have a way round it.

Arguments that the kernel takes as 32 bits are compared on 32 bits (``LOW``): the rest
of the register may hold anything. A filter that looked at all 64 let TIOCSTI through
twice in other sandboxes (CVE-2019-10063, CVE-2023-28100).

Sources: syscalls(2) and the page of each call, seccomp(2), the kernel's
Documentation/userspace-api/seccomp_filter.rst; for what is worth refusing, the table
in Docker's documentation ("Seccomp security profiles for Docker").
"""

from __future__ import annotations

from hexe.records import Record

EPERM = 1
ENOSYS = 38
LOW = 0xFFFF_FFFF

VARIANTS = ("sandbox", "full")


class Group(Record):
    """Allowed calls that belong together."""

    subject: str
    reason: str
    names: tuple[str, ...]


class Refusal(Record):
    """A refused call. ``errno`` is the answer: EPERM, or ENOSYS where the program then takes an older way."""

    name: str
    reason: str
    errno: int = EPERM


class Compare(Record):
    """True where ``argument & mask == value``; arguments count from 0."""

    argument: int
    mask: int
    value: int


class Special(Record):
    """Calls of one name for which every comparison holds get the other decision than the name has."""

    syscall: str
    where: tuple[Compare, ...]
    reason: str


class Rules(Record):
    """The whole policy of one variant."""

    allowed: tuple[str, ...]
    refused: tuple[Refusal, ...]
    allowed_where: tuple[Special, ...]
    refused_where: tuple[Special, ...]


def _group(subject: str, reason: str, names: str) -> Group:
    return Group(subject, reason, tuple(names.split()))


ALLOWED = (
    _group(
        "reading and writing",
        "what a program does with descriptors it has; what they reach was decided by the mounts",
        """read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek sendfile sendfile64
        splice tee vmsplice copy_file_range readahead fadvise64 fadvise64_64 arm_fadvise64_64 fallocate ftruncate
        ftruncate64 fsync fdatasync sync syncfs sync_file_range arm_sync_file_range close close_range
        dup dup2 dup3 fcntl fcntl64 flock pipe pipe2""",
    ),
    _group(
        "device control",
        "terminals and files need ioctl; REFUSED_WHERE closes the dangerous requests, no device node opens the others",
        "ioctl",
    ),
    _group(
        "opening and naming files",
        "the mounts, the file modes and Landlock decide which files; name_to_handle_at only names one, and the call "
        "that would open a handle is refused",
        """open openat creat access faccessat faccessat2 chdir fchdir getcwd readlink readlinkat rename renameat
        renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir truncate truncate64 umask readdir
        getdents getdents64 name_to_handle_at""",
    ),
    _group(
        "making special files",
        "fifos and sockets are ordinary; a device node needs CAP_MKNOD on the host, which nobody inside has",
        "mknod mknodat",
    ),
    _group(
        "looking at files",
        "metadata of what is visible anyway",
        """stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 oldstat
        oldlstat oldfstat file_getattr""",
    ),
    _group(
        "changing metadata",
        "tar, git and package managers set modes, owners, times and attributes; the kernel checks ownership",
        """chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 utime utimes futimesat
        utimensat utimensat_time64 setxattr lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat
        listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr""",
    ),
    _group(
        "watching and waiting for files",
        "event loops, file watchers of build tools",
        """select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl
        epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1
        inotify_add_watch inotify_rm_watch""",
    ),
    _group(
        "asynchronous reading and writing, the old kind",
        "databases use it; unlike io_uring it can start only reads, writes, fsync and poll",
        "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    ),
    _group(
        "memory",
        "a program's own address space; memfd_create is a file without a name (browsers, Wayland, JITs)",
        """brk mmap mmap2 munmap mremap mprotect madvise msync mincore mlock mlock2 mlockall munlock munlockall
        remap_file_pages memfd_create membarrier pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack""",
    ),
    _group(
        "processes",
        "starting, replacing, ending and awaiting one's own children; REFUSED_WHERE keeps namespaces out of clone",
        "fork vfork clone execve execveat exit exit_group wait4 waitpid waitid pidfd_open getpid getppid gettid",
    ),
    _group(
        "process groups, sessions and limits",
        "shells do job control; raising a hard limit or a priority needs a capability",
        """getpgid setpgid getpgrp getsid setsid getrlimit ugetrlimit setrlimit prlimit64 getrusage times getpriority
        setpriority nice ioprio_get ioprio_set sysinfo uname olduname oldolduname""",
    ),
    _group(
        "scheduling",
        "thread pools pin and yield; real-time classes need a capability",
        """sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler
        sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval sched_rr_get_interval_time64 getcpu""",
    ),
    _group(
        "identities and capabilities",
        "programs ask for them and drop them; with no_new_privs and empty capability sets nothing can be gained",
        """getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid
        getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32
        setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
        capget capset""",
    ),
    _group(
        "signals",
        "the pid namespace bounds who can be reached",
        """kill tkill tgkill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo rt_sigaction rt_sigprocmask
        rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_sigreturn sigaltstack sigaction
        sigprocmask sigpending sigsuspend sigreturn signal sgetmask ssetmask pause restart_syscall""",
    ),
    _group(
        "threads",
        "what libc needs for threads and locks; modify_ldt is not among it",
        """futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue set_robust_list get_robust_list
        set_tid_address rseq set_thread_area get_thread_area arch_prctl set_tls get_tls""",
    ),
    _group(
        "reading the clocks, sleeping, timers",
        "time is no secret; the calls that set a clock are refused",
        """time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 nanosleep clock_nanosleep
        clock_nanosleep_time64 alarm getitimer setitimer timer_create timer_delete timer_gettime timer_gettime64
        timer_settime timer_settime64 timer_getoverrun timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
        timerfd_settime64""",
    ),
    _group(
        "sockets that exist",
        "which families can be made is decided at socket and socketpair",
        """bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown send sendto sendmsg
        sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64""",
    ),
    _group(
        "System V and POSIX IPC",
        "the ipc namespace is the sandbox's own; ipc is the 32-bit entry for the same calls and no others",
        """shmget shmat shmdt shmctl semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv msgctl ipc
        mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify
        mq_getsetattr""",
    ),
    _group(
        "process attributes",
        "prctl names threads, sets the parent-death signal and the speculation controls; no option reaches beyond the "
        "caller's own processes, and PR_SET_MM asks for a capability where it matters",
        "prctl",
    ),
    _group(
        "sandboxing oneself further",
        "browsers' helpers stack filters of their own; both calls can only take rights away",
        "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
    _group(
        "random numbers and the security modules' names",
        "harmless facts",
        "getrandom lsm_get_self_attr lsm_list_modules",
    ),
    _group(
        "calls that the kernel makes a program make",
        "a probe that the host's administrator set returns through them: refused, the program would crash (x86_64)",
        "uretprobe uprobe",
    ),
    _group("ARM's own", "instruction cache and mode switches that compilers emit", "breakpoint cacheflush usr26 usr32"),
)

DEBUGGING = _group(
    "looking into other processes",
    "debuggers, tracers and crash handlers among the sandbox's own processes (the pid namespace and the ptrace checks "
    "bound them); `full` refuses them: code that isn't trusted has no one to debug, and they were a way round filters",
    "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd",
)

_NEVER = "never implemented in Linux, or long removed: the answer that the kernel itself gives"
_ANOTHER_WAY = "old kernel interface that no current program needs"

REFUSED = (
    # Namespaces, mounts and roots: what the sandbox is made of.
    Refusal("unshare", "a new user namespace gives every capability inside it, and with them most kernel bugs"),
    Refusal("setns", "joins another namespace"),
    Refusal("clone3", "its flags lie in memory, where a filter can't see CLONE_NEWUSER; libc falls back", ENOSYS),
    Refusal("mount", "changes what is visible"),
    Refusal("umount", "would lay bare what a mount hides"),
    Refusal("umount2", "would lay bare what a mount hides"),
    Refusal("pivot_root", "changes the root"),
    Refusal("chroot", "nobody inside has CAP_SYS_CHROOT, and a second chroot is a known way out of the first"),
    Refusal("open_tree", "new mount interface: clones mounts"),
    Refusal("open_tree_attr", "new mount interface: clones mounts with other attributes"),
    Refusal("move_mount", "new mount interface: attaches mounts"),
    Refusal("mount_setattr", "new mount interface: could clear read-only"),
    Refusal("fsopen", "new mount interface: file system drivers parse what it is given (CVE-2022-0185)"),
    Refusal("fsconfig", "new mount interface: file system drivers parse what it is given (CVE-2022-0185)"),
    Refusal("fsmount", "new mount interface"),
    Refusal("fspick", "new mount interface: reconfigures a mounted file system"),
    Refusal("statmount", "mountinfo in /proc says the same; libmount falls back to it", ENOSYS),
    Refusal("listmount", "mountinfo in /proc says the same; libmount falls back to it", ENOSYS),
    Refusal("listns", "lists namespaces beyond the sandbox's own processes", ENOSYS),
    Refusal("sethostname", "the name is the sandbox's label"),
    Refusal("setdomainname", "the name is the sandbox's label"),
    # Files by other ways than a path.
    Refusal("open_by_handle_at", "opens any file of a mounted file system by its inode number (the Shocker escape)"),
    Refusal("openat2", "can make a set-user-id file: the mode lies in memory; programs fall back to openat", ENOSYS),
    Refusal("fanotify_init", "watches and can hold up file access of other programs"),
    Refusal("fanotify_mark", "watches and can hold up file access of other programs"),
    Refusal("quotactl", "administers disk quotas, and reads other users'"),
    Refusal("quotactl_fd", "administers disk quotas, and reads other users'"),
    Refusal("cachestat", "tells which pages of a shared file others have read (as in CVE-2019-5489)", ENOSYS),
    # The kernel's larger attack surfaces.
    Refusal("bpf", "loads programs into the kernel"),
    Refusal("perf_event_open", "counts and samples across the machine; a long list of kernel bugs"),
    Refusal("userfaultfd", "stops the kernel in the middle of a copy: the usual tool to win its races"),
    Refusal("io_uring_setup", "runs operations that no seccomp filter sees, on a large and young code base"),
    Refusal("io_uring_enter", "runs operations that no seccomp filter sees, on a large and young code base"),
    Refusal("io_uring_register", "runs operations that no seccomp filter sees, on a large and young code base"),
    Refusal("memfd_secret", "memory that even the host's administrator can't read, and that stops hibernation"),
    Refusal("modify_ldt", "old segment descriptors: only 16-bit and DOS emulators use them (CVE-2015-5157)"),
    Refusal("vm86", "virtual 8086 mode: only DOS emulators use it"),
    Refusal("vm86old", "virtual 8086 mode: only DOS emulators use it"),
    Refusal("personality", "READ_IMPLIES_EXEC and the emulation modes undo protections; ALLOWED_WHERE has the others"),
    Refusal("socket", "only the families that namespaces separate, see ALLOWED_WHERE; the rest load kernel modules"),
    Refusal("socketpair", "as socket"),
    Refusal("socketcall", "i386 only: its arguments lie in memory; newer code makes the direct calls", ENOSYS),
    # Keys.
    Refusal("add_key", "keyrings are not namespaced"),
    Refusal("request_key", "keyrings are not namespaced, and the kernel may start a helper on the host"),
    Refusal("keyctl", "keyrings are not namespaced: the caller's session keys would be readable"),
    # The machine.
    Refusal("reboot", "the machine belongs to the host"),
    Refusal("kexec_load", "starts another kernel"),
    Refusal("kexec_file_load", "starts another kernel"),
    Refusal("init_module", "loads code into the kernel"),
    Refusal("finit_module", "loads code into the kernel"),
    Refusal("delete_module", "unloads code from the kernel"),
    Refusal("create_module", _ANOTHER_WAY),
    Refusal("query_module", _ANOTHER_WAY),
    Refusal("get_kernel_syms", _ANOTHER_WAY),
    Refusal("swapon", "gives the kernel memory pages from a file"),
    Refusal("swapoff", "the machine's memory belongs to the host"),
    Refusal("acct", "process accounting of the whole machine, written to a file of one's choice"),
    Refusal("syslog", "the kernel's log tells addresses and other users' events"),
    Refusal("vhangup", "hangs up the terminal, which may be shared"),
    Refusal("iopl", "raw access to I/O ports"),
    Refusal("ioperm", "raw access to I/O ports"),
    Refusal("pciconfig_iobase", "raw access to PCI devices"),
    Refusal("pciconfig_read", "raw access to PCI devices"),
    Refusal("pciconfig_write", "raw access to PCI devices"),
    Refusal("lookup_dcookie", "a profiler's view of the machine's paths"),
    # Clocks.
    Refusal("settimeofday", "there is one clock, the host's"),
    Refusal("stime", "there is one clock, the host's"),
    Refusal("clock_settime", "there is one clock, the host's"),
    Refusal("clock_settime64", "there is one clock, the host's"),
    Refusal("adjtimex", "there is one clock, the host's; its mode lies in memory, so that even reading is refused"),
    Refusal("clock_adjtime", "as adjtimex"),
    Refusal("clock_adjtime64", "as adjtimex"),
    # Other processes and memory placement.
    Refusal("kcmp", "compares kernel addresses of two processes' objects: only checkpoint tools need it"),
    Refusal("process_mrelease", "frees a dying process's memory: for out-of-memory daemons"),
    Refusal("move_pages", "tells and changes where memory lies, of other processes too (CVE-2017-14140)"),
    Refusal("migrate_pages", "moves the memory of other processes too"),
    Refusal("mbind", "NUMA placement: the host shares the nodes out, and programs do without (CVE-2017-7616)"),
    Refusal("get_mempolicy", "NUMA placement: tells the machine's layout, and programs do without"),
    Refusal("set_mempolicy", "NUMA placement: the host shares the nodes out, and programs do without"),
    Refusal("set_mempolicy_home_node", "NUMA placement: the host shares the nodes out, and programs do without"),
    Refusal("lsm_set_self_attr", "changes one's own security label"),
    # Old and unused.
    Refusal("uselib", _ANOTHER_WAY),
    Refusal("ustat", _ANOTHER_WAY),
    Refusal("sysfs", _ANOTHER_WAY),
    Refusal("_sysctl", _ANOTHER_WAY),
    Refusal("bdflush", _ANOTHER_WAY),
    Refusal("nfsservctl", _ANOTHER_WAY),
    Refusal("epoll_ctl_old", _NEVER, ENOSYS),
    Refusal("epoll_wait_old", _NEVER, ENOSYS),
    Refusal("afs_syscall", _NEVER, ENOSYS),
    Refusal("break", _NEVER, ENOSYS),
    Refusal("ftime", _NEVER, ENOSYS),
    Refusal("getpmsg", _NEVER, ENOSYS),
    Refusal("gtty", _NEVER, ENOSYS),
    Refusal("idle", _NEVER, ENOSYS),
    Refusal("lock", _NEVER, ENOSYS),
    Refusal("mpx", _NEVER, ENOSYS),
    Refusal("prof", _NEVER, ENOSYS),
    Refusal("profil", _NEVER, ENOSYS),
    Refusal("putpmsg", _NEVER, ENOSYS),
    Refusal("security", _NEVER, ENOSYS),
    Refusal("stty", _NEVER, ENOSYS),
    Refusal("tuxcall", _NEVER, ENOSYS),
    Refusal("ulimit", _NEVER, ENOSYS),
    Refusal("vserver", _NEVER, ENOSYS),
)

# unshare without a namespace in it: CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM. The mask has every other
# bit, so that a namespace flag of a later kernel is refused too.
_OWN_THREAD_ONLY = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
_ALL_BITS = 0xFFFF_FFFF_FFFF_FFFF

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE_MASK = 0xF  # above it are SOCK_NONBLOCK and SOCK_CLOEXEC
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW = 1, 2, 3


def _internet(family: int, kind: int, reason: str) -> Special:
    # The type is compared because socket(AF_INET, SOCK_PACKET) silently makes an AF_PACKET socket
    # (__sock_create in net/socket.c), and SOCK_SEQPACKET and SOCK_DCCP load rarely tested modules.
    return Special("socket", (Compare(0, LOW, family), Compare(1, _SOCK_TYPE_MASK, kind)), reason)


def _persona(value: int, reason: str) -> Special:
    return Special("personality", (Compare(0, LOW, value),), reason)


ALLOWED_WHERE = (
    Special("unshare", (Compare(0, _ALL_BITS ^ _OWN_THREAD_ONLY, 0),), "a thread's own copy of its file table or cwd"),
    Special("socket", (Compare(0, LOW, _AF_UNIX),), "local sockets: the mounts decide which can be reached"),
    _internet(_AF_INET, _SOCK_STREAM, "TCP: the network namespace decides what can be reached"),
    _internet(_AF_INET, _SOCK_DGRAM, "UDP, and unprivileged ping"),
    _internet(_AF_INET, _SOCK_RAW, "the kernel asks for CAP_NET_RAW, which nobody inside has: ping then falls back"),
    _internet(_AF_INET6, _SOCK_STREAM, "TCP"),
    _internet(_AF_INET6, _SOCK_DGRAM, "UDP, and unprivileged ping"),
    _internet(_AF_INET6, _SOCK_RAW, "the kernel asks for CAP_NET_RAW, as above"),
    Special(
        "socket",
        (Compare(0, LOW, _AF_NETLINK), Compare(2, LOW, 0)),
        "NETLINK_ROUTE: getifaddrs and getaddrinfo read addresses by it; the other protocols are kernel surface",
    ),
    Special("socketpair", (Compare(0, LOW, _AF_UNIX),), "the only family that is paired in practice"),
    _persona(0, "the ordinary one (PER_LINUX)"),
    _persona(LOW, "asks, and changes nothing"),
    _persona(0x0008, "PER_LINUX32: uname of a 32-bit machine, for builds (setarch)"),
    _persona(0x20000, "UNAME26: a version number that old programs can read"),
    _persona(0x20008, "both of them"),
)

ALLOWED_WHERE_DEBUGGING = (
    _persona(0x40000, "ADDR_NO_RANDOMIZE: debuggers and sanitizers start their own programs without address layout"),
)

_NAMESPACE_FLAGS = (
    (0x00000080, "CLONE_NEWTIME (clone has its exit signal in these bits; no signal is that high)"),
    (0x00020000, "CLONE_NEWNS"),
    (0x02000000, "CLONE_NEWCGROUP"),
    (0x04000000, "CLONE_NEWUTS"),
    (0x08000000, "CLONE_NEWIPC"),
    (0x10000000, "CLONE_NEWUSER"),
    (0x20000000, "CLONE_NEWPID"),
    (0x40000000, "CLONE_NEWNET"),
)


def _request(number: int, reason: str) -> Special:
    return Special("ioctl", (Compare(1, LOW, number),), reason)


# A set-user-id file that code inside makes in a writable bind is the caller's on the host (in root's binds that of the
# directory's owner, root's even), where nothing says nosuid: whoever reaches it there becomes that user. Set-group-id
# stays allowed, since directories that groups share need it.
_S_ISUID = 0o4000
_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
_MODE_AT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2}
_SET_ID = "would make a set-user-id file on the host"
_SET_USER_ID = (
    *(Special(name, (Compare(at, _S_ISUID, _S_ISUID),), _SET_ID) for name, at in _MODE_AT.items()),
    # Without one of these flags the mode is ignored, and may be anything.
    *(
        Special(name, (Compare(at, flag, flag), Compare(at + 1, _S_ISUID, _S_ISUID)), _SET_ID)
        for name, at in (("open", 1), ("openat", 2))
        for flag in (_O_CREAT, _O_TMPFILE)
    ),
)

REFUSED_WHERE = (
    *_SET_USER_ID,
    *(Special("clone", (Compare(0, bit, bit),), f"{name}: as unshare") for bit, name in _NAMESPACE_FLAGS),
    _request(0x5412, "TIOCSTI: types into the terminal as if the user had (CVE-2016-2568 and many like it)"),
    _request(0x541C, "TIOCLINUX: pastes into a virtual console, the same attack"),
    _request(0x541D, "TIOCCONS: takes over the console's output"),
    _request(0x5423, "TIOCSETD: line disciplines load rarely tested drivers (CVE-2017-2636, CVE-2023-6546)"),
)


def rules(variant: str) -> Rules:
    """The policy of a variant, "sandbox" or "full". Raises ValueError for another one."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown filter {variant!r}: it is one of {', '.join(VARIANTS)}")
    allowed = tuple(name for group in ALLOWED for name in group.names)
    if variant == "full":
        closed = tuple(Refusal(name, DEBUGGING.reason) for name in DEBUGGING.names)
        return Rules(allowed, REFUSED + closed, ALLOWED_WHERE, REFUSED_WHERE)
    return Rules(allowed + DEBUGGING.names, REFUSED, ALLOWED_WHERE + ALLOWED_WHERE_DEBUGGING, REFUSED_WHERE)
