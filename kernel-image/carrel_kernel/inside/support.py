"""What a kernel shows beside what IPython shows: tables and charts as data."""

from __future__ import annotations

from typing import Any, Final

from IPython.core.formatters import BaseFormatter
from traitlets import Unicode

from carrel_kernel.inside import tables

TABLE_MIME: Final = "application/vnd.carrel.table+json"


class TableFormatter(BaseFormatter):
    """Formats DataFrames as JSON data, beside their text and HTML."""

    format_type = Unicode(TABLE_MIME)
    print_method = Unicode("_repr_carrel_table_")
    _return_type = dict


def install(shell: Any) -> None:
    """Add the formatters to the shell."""
    formatter = TableFormatter(parent=shell.display_formatter)
    for module in ("pandas", "pandas.core.frame"):  # the name of its module changed with pandas 3
        formatter.for_type_by_name(module, "DataFrame", tables.pandas_table)
    formatter.for_type_by_name("polars.dataframe.frame", "DataFrame", tables.polars_table)
    shell.display_formatter.formatters[TABLE_MIME] = formatter
