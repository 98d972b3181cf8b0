"""The kernel host: runs the IPython kernels of one session and is the only thing that speaks for them.

It runs in a kernel pod, or as a child process of the embedded product; both are the same program. It knows nothing of
people, tenants or history: it takes code, runs it at most once, and keeps what came out until it is acknowledged.

* `server`        routes, authentication and errors of the HTTP and WebSocket surface (`*_routes`, `channels`, `auth`)
* `supervisor`    the host's state: whose it is, its kernels, its executions
* `kernel`        the life of one kernel (`process`, `connection`, `protocol`, `ladder`, `introspection`)
* `executions`    at most once, and what is unacknowledged (`spool`, `outputs`, `acknowledged`)
* `files`         the workspace, confined (`changes`)
* `inside`        what runs in the kernel's own process
"""
