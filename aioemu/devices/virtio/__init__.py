"""Virtio devices and the transports that carry them: one class of device serves both."""
