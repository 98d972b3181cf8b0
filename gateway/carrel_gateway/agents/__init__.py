"""The agent: a loop over the session's event log, the models that it asks, and the words that they speak.

* `protocols`  what the loop needs from others (model, code runner, journal) and what it shows to a model
* `tags`       the parser of `<plan>`, `<code>` and `<answer>`
* `state`      the run, folded from its events
* `decide`     pure: the state and the limits → the next action
* `loop`       the edge: carries actions out and appends what came of them
* `prompts`    the view as chat messages, for language models
* `models`     the registry, the client of language models, and the rule-based `demo/analyst`

Knows execution, history and people only through the protocols; opens no database, no socket, no kernel.
"""
