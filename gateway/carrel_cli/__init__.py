"""The command line: `carrel serve`, `run`, `demo`, `sessions`, `version`.

It speaks to a gateway through the SDK. The gateway itself is imported by `serve` alone; `run` and `demo` start it as a
process of its own when none is there.
"""
