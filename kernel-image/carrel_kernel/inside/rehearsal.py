"""What every session does for the first time some day, done once in the zygote: imports and tables it needs are shared.

The first traceback of a process costs some 200 ms otherwise, nearly all of them for the tables of its highlighting.
"""

from __future__ import annotations

import sys

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.ultratb import AutoFormattedTB


def rehearse() -> None:
    """Format a traceback as IPython does, and a table as notebooks show it."""
    try:
        {}["rehearsal"]
    except KeyError as error:
        show = AutoFormattedTB(mode="Context", theme_name=ZMQInteractiveShell.colors.default_value, tb_offset=1)
        show.structured_traceback(type(error), error, error.__traceback__)
    if pandas := sys.modules.get("pandas"):
        pandas.DataFrame({"number": [1.5], "text": ["x"]})._repr_html_()
