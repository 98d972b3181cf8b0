"""The first cell: reads the files, settles types, and shows what the table looks like; pure.

The reader is small because a person reads it; what goes wrong with an unusual file is corrected in a second try
(`Options`), as a person would do it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from carrel_gateway.agents.models.analyst.code import cell, join
from carrel_gateway.agents.models.analyst.table import FACTS
from carrel_gateway.agents.protocols import FileView

TEXT_TABLES: Final = frozenset({".csv", ".tsv", ".tab", ".txt", ".dat", ".gz", ".data"})
OTHER_TABLES: Final = frozenset({".xlsx", ".xls", ".json", ".jsonl", ".ndjson", ".parquet"})
_MOST_FILES: Final = 6
_LONGEST_TITLE: Final = 3
"""A line that is too long as early as this shows that what stands above it is a title."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a further try does otherwise."""

    encoding: str = "utf-8-sig"
    skip_rows: int = 0
    skip_bad_lines: bool = False
    json_lines: bool = False


def readable(files: tuple[FileView, ...]) -> list[FileView]:
    """Return the files that may hold a table."""
    return [file for file in files if suffix_of(file.name) in TEXT_TABLES | OTHER_TABLES]


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a path."""
    return PurePosixPath(name).suffix.lower()


def chosen(files: list[FileView], question: str) -> list[FileView]:
    """Return the files to look at: those that the question names, or else the first few."""
    said = re.sub(r"[\W_]+", " ", question.casefold())
    named = [file for file in files if re.sub(r"[\W_]+", " ", PurePosixPath(file.name).stem.casefold()) in said]
    return (named or files)[:_MOST_FILES]


def correction(error: str, options: Options, names: list[str]) -> Options | None:
    """Return what to try after this error of the first cell, or none when nothing would help."""
    if "UnicodeDecodeError" in error or "UnicodeError" in error:
        order = (
            ["utf-8-sig", "cp1252", "latin-1"]
            if "0xff in position 0" not in error and "0xfe in position 0" not in error
            else ["utf-8-sig", "utf-16", "latin-1"]
        )
        later = order[order.index(options.encoding) + 1 :] if options.encoding in order else []
        return replace(options, encoding=later[0]) if later else None
    fields = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error)
    if fields and not options.skip_bad_lines:
        expected, line, saw = (int(group) for group in fields.groups())
        if saw > expected and expected <= 2 and line <= _LONGEST_TITLE and not options.skip_rows:
            return replace(options, skip_rows=line - 1)
        return replace(options, skip_bad_lines=True)
    if any(suffix_of(name) == ".json" for name in names) and "Trailing data" in error and not options.json_lines:
        return replace(options, json_lines=True)
    return None


def code(files: list[FileView], question: str, options: Options) -> str:
    """Return the cell that loads these files."""
    suffixes = {suffix_of(file.name) for file in files}
    text = bool(suffixes & TEXT_TABLES)
    reads = "\n".join(f"    {file.name!r}: tidy({_read(file.name, options)})," for file in files)
    if len(files) == 1:
        load = f"df = tidy({_read(files[0].name, options)})\nprofile({{{files[0].name!r}: df}})\ndf.head()"
    else:
        load = f"tables = {{\n{reads}\n}}\nprofile(tables)"
    packed = ".gz" in suffixes
    opener = "gzip.open" if packed else "open"
    imports = [
        *(["import gzip"] if packed else []),
        "import json",
        *(["import re"] if text else []),
        *(["from itertools import islice"] if text else []),
        "",
        "import matplotlib.pyplot as plt",
        "import pandas as pd",
        "from IPython.display import display",
        "",
    ]
    return join(
        "\n".join(imports) + "\n",
        *([_reader(options, opener) + "\n\n"] if text else []),
        _tidy() + "\n\n",
        _profile(question) + "\n\n",
        load,
    )


def _read(name: str, options: Options) -> str:
    suffix = suffix_of(name)
    if suffix in (".xlsx", ".xls"):
        return f"pd.read_excel({name!r})"
    if suffix == ".parquet":
        return f"pd.read_parquet({name!r})"
    if suffix in (".jsonl", ".ndjson") or (suffix == ".json" and options.json_lines):
        return f"pd.read_json({name!r}, lines=True)"
    if suffix == ".json":
        return f"pd.read_json({name!r})"
    return f"read_text({name!r})"


def _reader(options: Options, opener: str) -> str:
    read = "pd.read_csv(path, skiprows=header, na_values=MISSING, skipinitialspace=True, **form)"
    if options.skip_bad_lines:
        read = "read_leaving_out(path, skiprows=header, na_values=MISSING, skipinitialspace=True, **form)"
    skip = str(options.skip_rows or "next((at for at, line in enumerate(lines) if separator in line), 0)")
    return cell(f"""
        MISSING = ["?", "-", "--", ".", "na", "n.a.", "missing", "Missing", "(missing)"]


        def read_text(path):
            \"\"\"Read a table of text: find the separator and the header; with semicolons goes a decimal comma.\"\"\"
            with {opener}(path, "rt", encoding={options.encoding!r}) as file:
                lines = list(islice(file, 60))
            filled = [line for line in lines if line.strip()]
            if not filled or any("\\0" in line for line in filled):
                raise ValueError(f"{{path}} is not a table of text" if filled else f"{{path}} is empty")
            counts = {{mark: sorted(line.count(mark) for line in filled) for mark in "\\t;|,"}}
            always = [mark for mark in counts if counts[mark][0]]
            often = [mark for mark in counts if counts[mark][len(filled) // 2]] or [","]
            separator = max(always, key=lambda mark: counts[mark][0]) if always else often[0]
            header = {skip}
            form = {{"sep": separator, "decimal": "," if separator == ";" else ".", "encoding": {options.encoding!r}}}
            point = re.compile(r"(^|;)-?(\\d+\\.(\\d\\d?|\\d{{4,}})|0\\.\\d+)(;|$)")  # 1.5 is no group of thousands
            points = any(point.search(line.strip()) for line in filled)
            df = {read}
            if not isinstance(df.index, pd.RangeIndex) and df.iloc[:, -1].isna().mean() > 0.5:
                raise ValueError(f"the first line of {{path}} has more fields than its header, and most others do not")
            df.attrs["decimal"] = "." if points else form["decimal"]
            return df
    """) + (_leaving_out() if options.skip_bad_lines else "")


def _leaving_out() -> str:
    return "\n\n\n" + cell("""
        def read_leaving_out(path, **form):
            \"\"\"Read a table with broken lines, and say how many were left out.\"\"\"
            broken = []
            df = pd.read_csv(path, engine="python", on_bad_lines=broken.append, **form)
            print(len(broken), "lines of", path, "do not fit the header and are left out")
            return df
    """)


def _tidy() -> str:
    return cell("""
        DATES = ["ISO8601", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d-%m-%Y", "%b %Y"]
        DATES += ["%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%B %Y"]


        def as_number(text, decimal_comma):
            \"\"\"Numbers that are written with units, thousands separators or a decimal comma.\"\"\"
            digits = text.str.replace(r"[€$£%]|(?<=\\d)[\\s'](?=\\d{3})", "", regex=True).str.strip()
            digits = digits.str.replace(r"^\\((.+)\\)$", r"-\\1", regex=True)  # accounting
            if decimal_comma and digits.str.fullmatch(r"-?([1-9]\\d{0,2}(\\.\\d{3})+|\\d+)").all():
                digits = digits.str.replace(".", "")
            elif digits.str.contains(r",\\d{1,2}$|,\\d{4,}$|\\.\\d{3},").any():
                digits = digits.str.replace(".", "").str.replace(",", ".")
            return pd.to_numeric(digits.str.replace(",", ""), errors="coerce")


        def as_date(text):
            \"\"\"Dates in the first of the usual forms that fits most of them.\"\"\"
            if not text.str.contains(r"\\d{4}|\\d[./-]\\d+[./-]\\d").mean() > 0.9:
                return pd.Series(pd.NaT, index=text.index)
            first = text.head(50)
            forms = [form for form in DATES if pd.to_datetime(first, format=form, errors="coerce").notna().mean() > 0.9]
            tries = [pd.to_datetime(text, format=form, errors="coerce") for form in forms]
            return max(tries, key=lambda dates: dates.count(), default=pd.Series(pd.NaT, index=text.index))


        def tidy(df):
            \"\"\"Settle the types of columns that were read as text.\"\"\"
            decimal_comma = df.attrs.pop("decimal", ".") == ","
            df = df if isinstance(df.index, pd.RangeIndex) else df.reset_index()
            df = df.rename(columns=lambda name: str(name).strip())
            if df.columns[0].startswith("Unnamed") and pd.Index(df.iloc[:, 0]).is_monotonic_increasing:
                df = df.iloc[:, 1:]  # row numbers
            for name in df.select_dtypes(exclude=["number", "bool", "datetime", "datetimetz"]).columns:
                text = df[name].map(lambda value: str(value).strip(), na_action="ignore")
                text = text.astype("str").where(df[name].notna())
                known = text.dropna()
                for values in (as_number(known, decimal_comma), as_date(known)):
                    if len(known) and values.notna().mean() >= 0.9:
                        df.attrs[name] = int(values.isna().sum())  # values that could not be read
                        text = values.reindex(df.index)
                        break
                df[name] = text
            return df
    """)


def _profile(question: str) -> str:
    return cell(f"""
        QUESTION = {question[:2000]!r}


        def facts(**values):
            \"\"\"Hand over what the answer is written from, beside the output.\"\"\"
            plain = lambda value: value.item() if hasattr(value, "item") else str(value)  # numpy's numbers, dates
            display({{{FACTS!r}: json.dumps(values, default=plain), "text/plain": ""}}, raw=True)


        def describe(df, name):
            column = df[name]
            kind = column.dtype.kind
            kind = "boolean" if kind == "b" else "number" if kind in "iuf" else "date" if kind == "M" else "text"
            counts = column.value_counts()
            return {{
                "name": name,
                "kind": kind,
                "missing": int(column.isna().sum()),
                "distinct": len(counts),
                "min": column.min() if kind in ("number", "date") and len(counts) else None,
                "max": column.max() if kind in ("number", "date") and len(counts) else None,
                "values": [str(value)[:60] for value in counts.index[:30]] if len(counts) <= 30 else [],
                "named": [value for value in counts.index if kind == "text" and value.lower() in QUESTION.lower()][:30],
                "unreadable": df.attrs.get(name, 0),
            }}


        def profile(tables):
            \"\"\"Show the columns of each table.\"\"\"
            found = [
                {{"file": file, "rows": len(df), "columns": [describe(df, name) for name in df.columns]}}
                for file, df in tables.items()
            ]
            for table in found:
                print(table["file"], table["rows"], "rows")
                print(pd.DataFrame(table["columns"])[["name", "kind", "missing", "distinct"]].to_string(index=False))
            facts(tables=found)
    """)
