"""What init and the caller say to each other over their socket: a letter and a few numbers, one packet each.

From the sandbox: ``E stage index errno`` a step failed; ``T`` the terminal's master
comes with this packet; ``D`` init stands sealed at the gate, and nothing of the command
exists; ``F errno`` the command's exec failed; ``R`` a pidfd of the command comes with
this packet, which is not reaped until ``A``; ``S signal`` it stopped; ``X status user
system peak`` it ended; ``P text`` init itself failed. From the caller: ``G`` go on;
``A`` the command's entry in /proc has been read; ``N signal`` pass this on; ``C``
continue in the foreground; ``K`` kill everything.
"""

from __future__ import annotations

from hexe.linux.constants import LONGEST_PACKET


def pack(letter: str, *values: object) -> bytes:
    """A packet: the letter and the values as text, separated by spaces."""
    return " ".join([letter, *(str(value) for value in values)]).encode("utf-8", "backslashreplace")[:LONGEST_PACKET]


def unpack(packet: bytes) -> tuple[str, list[str]]:
    """The letter and the values of a packet; an empty letter at the end of the stream."""
    if not packet:
        return "", []
    letter, *values = packet.decode("utf-8", "replace").split(" ")
    return letter, values
