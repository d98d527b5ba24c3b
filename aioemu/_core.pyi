"""What cffi makes of core/cdef.h: functions and constants under `lib`, types and buffers under `ffi`."""

from typing import Any

import cffi

class _Lib:
    def __getattr__(self, name: str) -> Any: ...
    def __dir__(self) -> list[str]: ...

ffi: cffi.FFI
lib: _Lib
