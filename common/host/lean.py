"""structlog without what it would import for nothing: rich, for tracebacks in colours that nothing here shows, 4 MiB and a quarter of
the time in which a process starts; greenlet, for a module of its past that nobody here asks for, and with it C++'s library, 1 MiB.
Who takes structlog from here takes it before anybody else does.
"""

import sys

_HIDDEN = [name for name in ("rich", "greenlet") if name not in sys.modules] if "structlog" not in sys.modules else []
for _name in _HIDDEN:
    sys.modules[_name] = None  # type: ignore[assignment]  # how Python is told that a module is not to be found
try:
    import structlog
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

__all__ = ["structlog"]
