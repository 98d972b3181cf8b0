"""`python -m carrel_kernel`: a kernel host. What it does is in `program`, which is imported quickly here."""

from __future__ import annotations

import sys

from carrel_wire.quick_start import importing

if __name__ == "__main__":
    with importing():
        from carrel_kernel.program import main
    sys.exit(main())
