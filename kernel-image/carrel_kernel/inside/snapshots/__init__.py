"""Snapshots of a kernel's variables, taken and restored in its own process.

The format is in docs/reference/snapshots.md. Everything here runs beside user code, in the main thread between two
cells, and only when the host asks for it (`calls`). Nothing of it is ever called in the host.
"""
