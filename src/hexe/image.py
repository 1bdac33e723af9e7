"""The image: the bytecode of everything that ``hexe run`` imports, in one file beside Python's own cache.

Finding and opening 36 modules one by one takes 3 ms, a third of the interpreter's own
start and as long as building a sandbox. The image is to the package what a .pyc is to
a module, with the same rule: it counts only while the interpreter's magic number and
every source's time and size are what they were. When it doesn't count, the ordinary
import runs, and a new image is written after the command has ended, where Python
itself would write bytecode too.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

import hexe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    Entry = tuple[str, str, bool, int, int, CodeType]
    """Name, source, whether it is a package, the source's time (ns) and size (bytes), code."""


def image_path() -> str:
    """Where this interpreter's image of this installation lies."""
    level = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""  # as a .pyc is named: other code without asserts
    return f"{os.path.dirname(hexe.__file__)}/__pycache__/run.{sys.implementation.cache_tag}{level}.image"


def load(path: str) -> bool:
    """Put the image's modules into ``sys.modules``; False, and nothing done, when it is missing or doesn't count."""
    entries = read(path)
    if not entries:
        return False
    modules = sys.modules
    for name, source, is_package, _, _, code in entries:
        spec = ModuleSpec(name, SourceFileLoader(name, source), origin=source, is_package=is_package)
        spec.has_location = True
        module = type(sys)(name)
        module.__spec__ = spec
        module.__loader__ = spec.loader
        module.__file__ = source
        module.__package__ = spec.parent
        if is_package:
            module.__path__ = spec.submodule_search_locations = [os.path.dirname(source)]
        modules[name] = module
        exec(code, module.__dict__)  # noqa: S102 - what importing it would do
        parent, _, own = name.rpartition(".")
        setattr(modules[parent], own, module)
    return True


def read(path: str) -> list[Entry]:
    """The image's entries in the order in which their code must run; none when it doesn't count."""
    try:
        with open(path, "rb", buffering=0) as file:
            magic, package, entries = marshal.loads(file.read())
        if magic != MAGIC_NUMBER or package != hexe.__file__:
            return []
        for _, source, _, mtime, size, _ in entries:
            found = os.stat(source)
            if found.st_mtime_ns != mtime or found.st_size != size:
                return []
    except (OSError, ValueError, TypeError, EOFError):
        return []
    return entries  # type: ignore[no-any-return]


class Recorder:
    """Notes in which order the package's modules finish while they are imported in the ordinary way."""

    def __init__(self) -> None:
        self.finished: list[ModuleType] = []
        self._ordinary = SourceFileLoader.exec_module

    def __enter__(self) -> Recorder:
        ordinary, finished = self._ordinary, self.finished

        def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
            ordinary(loader, module)
            if module.__name__.startswith("hexe."):
                finished.append(module)

        SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *_: object) -> None:
        SourceFileLoader.exec_module = self._ordinary  # type: ignore[method-assign]

    def save(self) -> None:
        """Write the image of what was recorded, where bytecode may be written. No error when it can't be."""
        path = image_path()
        directory = os.path.dirname(path)
        try:
            if sys.dont_write_bytecode or os.stat(os.path.dirname(directory)).st_uid != os.geteuid():
                return
            data = marshal.dumps((MAGIC_NUMBER, hexe.__file__, [entry_of(module) for module in self.finished]))
            os.makedirs(directory, exist_ok=True)
            new = f"{path}.{os.getpid()}"
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                if os.write(fd, data) == len(data):
                    os.replace(new, path)
                    return
            finally:
                os.close(fd)
                try:
                    os.unlink(new)  # what a full disk took only a part of
                except FileNotFoundError:
                    pass
        except Exception:  # noqa: BLE001 - the command has ended already, and its status is what counts
            return  # as with a .pyc: a full disk, a read-only directory, a source that is being edited only cost time


def entry_of(module: ModuleType) -> Entry:
    """A module's entry. The source is looked at before its code is: if it changes in between, the entry is stale."""
    spec = module.__spec__
    assert spec is not None and isinstance(spec.loader, SourceFileLoader)
    source = spec.loader.path
    found = os.stat(source)
    code = spec.loader.get_code(module.__name__)
    assert code is not None
    return module.__name__, source, hasattr(module, "__path__"), found.st_mtime_ns, found.st_size, code
