"""The custom resources of Carrel: what people and the gateway ask for, and what the operator says about it.

* `session`        AgentSession, one isolated kernel (namespaced)
* `session_class`  SessionClass, what the administrator allows (cluster-scoped)
* `common`         the base model, quantities, conditions
* `environment`    names of environment variables that nobody may set
* `names`          group, version, labels and annotations
* `schema`, `crds`, `generate`  from the models to `crds/*.yaml`

A spec is intent and a status observation; conditions say how things stand, and there is no phase. Nothing here talks
to an API server.
"""
