"""The rule-based analyst `demo/analyst`: reads a question by rules, writes pandas, answers from what the code printed.

`model` is the way of one run. Understanding: `words`, `columns`, `filters`, `question`, `intents`, `follow_up` →
`request`. Writing: `load` (first cell), `code`, `analyses` (one module a kind), `writing`, `refusals`.
"""

from carrel_gateway.agents.models.analyst.model import AnalystModel

__all__ = ["AnalystModel"]
