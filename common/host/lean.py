"""structlog without rich, which it would import for tracebacks in colours that nothing here shows: 4 MiB and a quarter of the time
in which a process starts. Who takes structlog from here takes it before anybody else does.
"""

import sys

_IS_HIDDEN = "structlog" not in sys.modules and "rich" not in sys.modules
if _IS_HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python is told that a module is not to be found
try:
    import structlog
finally:
    if _IS_HIDDEN:
        del sys.modules["rich"]

__all__ = ["structlog"]
