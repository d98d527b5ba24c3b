"""Processors for guests: the host's own through KVM, a software one, or none; and how to choose."""
