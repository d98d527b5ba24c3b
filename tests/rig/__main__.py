"""`python -m tests.rig COMMAND...`: run a command where KVM is hardware KVM; its output, its exit status."""

from __future__ import annotations

import sys

from tests.rig.outer import Rig

if __name__ == "__main__":
    with Rig(sys.argv[1:]) as rig:
        for result in rig.results():
            print(result)
        sys.stdout.write(rig.console.decode(errors="replace"))
    sys.exit(rig.exit_status)
