"""Device nodes: making one, using one that lies in a bind, and finding one of the host's."""

from __future__ import annotations

import os
import stat

from kit import Control, Facts, attempt

NO_MKNOD = "no CAP_MKNOD on the host (and Landlock's rules in sandbox, full)"
NODEV = "every bind is nodev"
MINIMAL_DEV = "/dev has only a few harmless devices"


@attempt("EPERM|EACCES", "host-root", by=NO_MKNOD)
def mknod_block(facts: Facts) -> str:
    """Make a block device node in a writable bind."""
    path = f"{facts.writable}/block"
    os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    os.unlink(path)
    return "a block device"


@attempt("EPERM|EACCES", "host-root", by=NO_MKNOD)
def mknod_char(facts: Facts) -> str:
    """Make a node of /dev/mem in a writable bind."""
    path = f"{facts.writable}/mem"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 1))
    os.unlink(path)
    return "a character device"


@attempt("EACCES", Control("host", needs="root"), by=NODEV)
def device_in_bind(facts: Facts) -> str:
    """Open a character device that lies in a bind, made there by root, for all to use."""
    return f"read {os.read(os.open(f'{facts.readonly}/zero', os.O_RDONLY), 1)!r}"


@attempt("EACCES", Control("host", "ESCAPED|REFUSED (ENXIO|ENODEV|EPERM)", needs="root"), by=NODEV)
def block_device_in_bind(facts: Facts) -> str:
    """Open a block device that lies in a bind and belongs to the caller."""
    os.close(os.open(f"{facts.readonly}/block", os.O_RDONLY))
    return "it is open"


@attempt("ENOENT", Control("host-root", needs="disk"), by=MINIMAL_DEV)
def disk(facts: Facts) -> str:
    """Open a disk of the host, such as /dev/vda."""
    os.close(os.open(facts.block_device or "/dev/vda", os.O_RDONLY))
    return f"{facts.block_device} is open"


@attempt("ENOENT", Control("host-root", needs="file /dev/kmsg"), by=MINIMAL_DEV)
def kernel_log_device(facts: Facts) -> str:
    """Open /dev/kmsg."""
    os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    return "it is open"


@attempt("ENOENT", Control("host-root", needs="file /dev/fuse"), by=MINIMAL_DEV)
def fuse_device(facts: Facts) -> str:
    """Open /dev/fuse, to serve a file system of one's own."""
    os.close(os.open("/dev/fuse", os.O_RDWR))
    return "it is open"


@attempt("EROFS", "default without read-only", by="/dev itself is read-only")
def new_file_in_dev(facts: Facts) -> str:
    """Put a file of one's own into /dev."""
    os.close(os.open("/dev/mine", os.O_WRONLY | os.O_CREAT))
    return "/dev takes new files"
