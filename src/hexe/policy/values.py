"""Parsers of the values that people type: durations, binds, names. Pure; every refusal shows a good example."""

from __future__ import annotations

from hexe.errors import UsageError
from hexe.policy.model import Mount, normalize

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ID_LIMIT = 2**32 - 1  # the kernel keeps the last one for "no id"
_PATH_MAX = 4096
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")


def _bad(option: str, value: str, allowed: str, example: str) -> UsageError:
    return UsageError(f"{option}: {value!r} is not {allowed}", hint=f"for example {option} {example}")


def parse_duration(option: str, value: str) -> float:
    """Seconds from ``30``, ``30s``, ``1.5m``, ``2h``, ``500ms``; more than zero and at most 365 days."""
    text = value.strip()
    unit = ""
    for suffix in ("ms", "s", "m", "h", "d"):
        if text.endswith(suffix):
            unit, text = suffix, text[: -len(suffix)]
            break
    whole, dot, part = text.partition(".")
    plain = (whole or part) and set(whole + part) <= _DIGITS and not (dot and not part)
    if not plain or len(text) > 15:
        raise _bad(option, value, "a duration: a number with ms, s, m, h or d (seconds without)", "30s")
    seconds = float(text) * _UNITS[unit or "s"]
    if not 0.001 <= seconds <= 365 * 86400:
        raise _bad(option, value, "a duration between 1ms and 365d", "30s")
    return seconds


def parse_id(option: str, value: str) -> str:
    """An identity: ``keep``, ``root``, or a number from 0 to 4294967294; ``keep`` is given back as ``caller``."""
    if value == "keep":
        return "caller"
    if value == "root":
        return "root"
    if value and set(value) <= _DIGITS and len(value) < 11 and int(value) < _ID_LIMIT:
        return str(int(value))
    raise _bad(option, value, "an id: a number from 0 to 4294967294, keep or root", "1000")


def parse_hostname(option: str, value: str) -> str:
    """A host name of at most 64 bytes (the kernel's limit): letters, digits, dots and dashes."""
    good = value and len(value) <= 64 and set(value) <= _LETTERS | _DIGITS | {"-", "."}
    if not good or value[0] in "-." or value[-1] in "-.":
        raise _bad(option, value, "a host name: up to 64 letters, digits, dots and dashes", "builder")
    return value


def parse_env_name(option: str, value: str) -> str:
    """The name of a variable: anything but ``=`` and NUL, and not empty."""
    if not value or "=" in value or "\0" in value:
        raise _bad(option, value, "the name of a variable", "LANG")
    return value


def parse_env(option: str, value: str) -> tuple[str, str]:
    """``NAME=VALUE``, split at the first equals sign."""
    name, equals, content = value.partition("=")
    if not equals or not name or "\0" in value:
        raise _bad(option, value, "NAME=VALUE", "LANG=C.UTF-8")
    return name, content


def absolute(path: str, cwd: str, home: str) -> str:
    """``path`` made absolute from ``cwd``, with a leading ``~`` for ``home``, and normalized."""
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return normalize(path if path.startswith("/") else f"{cwd}/{path}")


def parse_target(option: str, value: str, home: str) -> str:
    """Where a mount goes: an absolute path inside, not the root and nothing that the sandbox keeps fresh itself."""
    if "\0" in value or not (value == "~" or value.startswith(("/", "~/"))):
        raise _bad(option, value, "an absolute path inside the sandbox", "/data")
    target = absolute(value, "/", home)
    if len(target.encode("utf-8", "surrogateescape")) >= _PATH_MAX:
        raise UsageError(f"{option}: the target is longer than any path may be", hint=f"at most {_PATH_MAX - 1} bytes")
    if target == "/":
        raise UsageError(f"{option}: the root of a sandbox is its own", hint="mount below it, for example /data")
    for kept in ("/proc", "/dev"):
        if target == kept or target.startswith(kept + "/"):
            raise UsageError(
                f"{option}: {target} would replace the sandbox's own {kept}",
                hint="choose a target outside /proc and /dev, for example /data",
            )
    return target


def parse_bind(option: str, value: str, cwd: str, home: str) -> Mount:
    """``SRC`` or ``SRC:DST``; a relative source starts at ``cwd``. ``\\:`` is a colon in a path."""
    parts = [part.replace("\0", ":") for part in value.replace("\\:", "\0").split(":")]
    if "\0" in value or not parts[0] or len(parts) > 2 or (len(parts) == 2 and not parts[1]):
        raise _bad(option, value, "SRC or SRC:DST", "/data:/data")
    source = absolute(parts[0], cwd, home)
    target = parse_target(option, parts[1] if len(parts) == 2 else source, home)
    return Mount(option.lstrip("-"), source, target)


def parse_choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value in choices:
        return value
    from hexe.policy.suggest import did_you_mean

    raise UsageError(
        f"{option}: {value!r} is none of {', '.join(choices)}" + did_you_mean(value, choices),
        hint=f"for example {option} {choices[0]}",
    )


def parse_directory(option: str, value: str, cwd: str, home: str) -> str:
    """A directory as seen inside; a relative one starts at the caller's working directory."""
    if not value or "\0" in value:
        raise _bad(option, value, "a directory", "/home")
    return absolute(value, cwd, home)
