"""Hexe: sandboxed commands and terminals for Linux."""

__version__ = "0.1.0"
