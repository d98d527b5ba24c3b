"""PEP 517 back end: setuptools' own, after the library has been built and laid into the package."""

from __future__ import annotations

import shutil
from typing import Any

from setuptools import build_meta

import library

PACKAGE = library.ENGINE / "aioemu_engine"

get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_sdist = build_meta.build_sdist


def _tools() -> list[str]:
    """What the build needs and this host has not."""
    missing = [tool for tool in ("cmake",) if not shutil.which(tool)]
    return ["pip", "wheel", *missing]


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_tools()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_tools()]


def _lay_in() -> None:
    """Put the library and the header where the package's functions say they are."""
    made = library.build()
    for folder, name in (("lib", library.LIBRARY), ("include", library.HEADER.name)):
        target = PACKAGE / folder
        target.mkdir(exist_ok=True)
        library.replace(made / name, target / name)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    _lay_in()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    _lay_in()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
