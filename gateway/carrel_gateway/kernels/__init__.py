"""Client of the kernel hosts: connections, their pool, and the way from execution events to notebook outputs."""
