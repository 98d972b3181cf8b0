"""What a kernel shows beside what IPython shows: tables and, when asked, charts as data."""

from __future__ import annotations

from typing import Any, Final

from IPython.core.formatters import BaseFormatter
from traitlets import Unicode

from carrel_kernel.inside import charts, tables

TABLE_MIME: Final = "application/vnd.carrel.table+json"
CHART_MIME: Final = "application/vnd.carrel.chart+json"


class TableFormatter(BaseFormatter):
    """Formats DataFrames as JSON data, beside their text and HTML."""

    format_type = Unicode(TABLE_MIME)
    print_method = Unicode("_repr_carrel_table_")
    _return_type = dict


class ChartFormatter(BaseFormatter):
    """Formats figures as JSON data, beside their picture.

    It looks for figures itself: IPython takes them from every formatter when it decides on the formats of pictures.
    """

    format_type = Unicode(CHART_MIME)
    print_method = Unicode("_repr_carrel_chart_")
    _return_type = dict

    def __call__(self, obj: Any) -> dict[str, Any] | None:
        """Return the data of a figure; none of anything else."""
        return charts.chart(obj) if charts.is_figure(obj) else super().__call__(obj)


def install(shell: Any) -> None:
    """Add the formatters to the shell."""
    formatters = shell.display_formatter.formatters
    table = formatters[TABLE_MIME] = TableFormatter(parent=shell.display_formatter)
    for module in ("pandas", "pandas.core.frame"):  # the name of its module changed with pandas 3
        table.for_type_by_name(module, "DataFrame", tables.pandas_table)
    table.for_type_by_name("polars.dataframe.frame", "DataFrame", tables.polars_table)
    formatters[CHART_MIME] = ChartFormatter(parent=shell.display_formatter)
