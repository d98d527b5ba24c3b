"""The native core's sources; the compiled module is `aioemu._core`.

The C files here hold every path that runs per exit, per request or per packet. `build.py` compiles them.
"""
