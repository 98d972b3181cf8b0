"""The operator: turns AgentSession objects into isolated kernel pods and keeps them so.

The way of one change: `handlers` put a key into the `queue`; a `worker` observes that one session through `cluster`,
`reconcile` decides (pure), `builders` and `status` make the documents (pure), and the worker carries the plan out
through `cluster` and `hosts`. All state is in the API server; what is kept in memory can be asked for again.
"""
