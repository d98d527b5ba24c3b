"""`python -m aioemu` is the command."""

from __future__ import annotations

import sys

from aioemu.cli import main

if __name__ == "__main__":
    sys.exit(main())
