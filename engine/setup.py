"""Tell setuptools that the package holds a library of this platform; all else is in pyproject.toml."""

from __future__ import annotations

from setuptools import Distribution, setup


class PlatformDistribution(Distribution):
    """Has no extension module, and yet is of one platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=PlatformDistribution)
