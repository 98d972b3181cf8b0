"""What the parts of Carrel say to each other: the kernel-host protocol and the closed sets of event types.

Pure data (msgspec structs), tokens and nothing else: no sockets, no files, no imports of other Carrel packages.

* `events`   what one execution emits, in order (kernel host → gateway)
* `host`     requests and replies of the kernel host's `/v1` surface
* `snapshots`  manifests of snapshots, and the requests and replies about them
* `tokens`   the short-lived Ed25519 tokens that every call but health carries
* `log`      the closed set of event types of a session's append-only log
* `quick_start`  how the programs import themselves
"""

__version__ = "0.1.0"
