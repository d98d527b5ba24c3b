"""What is built: one place for the builder, the package and the library."""

from __future__ import annotations

UNICORN_VERSION = "2.1.4"
# Raise with any change of patches/ or src/ that a user of the library can notice.
PATCH_LEVEL = 5
PACKAGE_VERSION = f"{UNICORN_VERSION}.{PATCH_LEVEL}"
