"""The Plan: ordered operations in stages, what the standard streams become, and what to attest."""

from __future__ import annotations

from hexe.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.model import Policy
    from hexe.sandbox.operations import (
        CreateNamespaces,
        Execute,
        HostOperation,
        InnerOperation,
        MapsOperation,
        Operation,
        OuterOperation,
        SealOperation,
    )


class Plan(Record):
    """What will be done, by whom, in which order; ``stage`` gives a stage's operations by its name.

    host: the parent, before the child exists. maps: the parent, for the child.
    outer: the child, on the host's filesystem. inner: from the pivot on. seal: the
    last privileges go, before anything of the command runs. ``streams`` says for each
    standard descriptor: pass, write-only, relay, or terminal.
    """

    policy: Policy
    namespaces: CreateNamespaces
    host: tuple[HostOperation, ...]
    maps: tuple[MapsOperation, ...]
    outer: tuple[OuterOperation, ...]
    inner: tuple[InnerOperation, ...]
    seal: tuple[SealOperation, ...]
    execute: Execute
    streams: tuple[str, str, str]
    notes: tuple[str, ...]
    """What this host doesn't have of the parts that a profile takes only where the kernel has them."""

    def stage(self, name: str) -> tuple[Operation, ...]:
        """The operations of the stage host, maps, outer, inner or seal."""
        operations: tuple[Operation, ...] = getattr(self, name)
        return operations

    @property
    def terminal(self) -> bool:
        """Whether the command gets a terminal of its own."""
        return "terminal" in self.streams
