"""Adds the C extension `aioemu._core` to the build; everything else is in pyproject.toml.

`aioemu/core/build.py` compiles; this file only tells setuptools where the result goes. With AIOEMU_NO_CORE set it is
left out: `make venv` does so, because `make core` builds it in place.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("core_build", ROOT / "aioemu" / "core" / "build.py")
assert spec is not None
assert spec.loader is not None
core_build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core_build)


class BuildCore(build_ext):
    """Hands the one extension to the project's own incremental builder."""

    def build_extension(self, ext: Extension) -> None:
        core_build.build(Path(self.get_ext_fullpath(ext.name)))


has_core = not os.environ.get("AIOEMU_NO_CORE")

setup(
    ext_modules=[Extension("aioemu._core", sources=[], py_limited_api=True)] if has_core else [],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
