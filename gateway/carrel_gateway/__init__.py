"""The gateway: the stateless process that people, agents and other programs talk to.

It routes chat and code to kernel hosts and keeps every message, cell and artifact; it runs no code of users itself.
"""
