"""How a guest reaches a device: registers, windows, wires and, on top of them, address ranges and lines."""
