"""Snapshots as the host sees them: manifests, contents under their digests, and whose they are.

* `service`   takes, restores and seals
* `asking`    what the kernel is asked for, and how long that may take
* `contents`  the files of the workspace
* `blobs`     the folder of contents

Nothing here unpickles anything; that happens in the kernel's own process (`inside.snapshots`).
"""
