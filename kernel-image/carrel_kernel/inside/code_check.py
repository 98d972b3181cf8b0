"""Whether code keeps to a list of imports, and away from what gets around it: a lint before execution, no boundary.

It finds what is plainly written: other imports, shell commands and magics, `eval` and its like, attributes that lead to
Python's internals or to modules that libraries have imported. Code that wants to get around it can, for Python is not
made to be fenced in from within; what it then may do is decided by its pod, its limits and its network. It helps models
and people to keep to what is there, and refuses before anything has run.

`validate_code` is pure; `enforce` puts it before every cell that a kernel runs, from wherever it comes.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from IPython.core.error import InputRejected
from IPython.core.inputtransformer2 import TransformerManager

STANDARD: Final = ("pandas", "numpy", "sklearn", "xgboost", "matplotlib", "seaborn", "ta")
"""What `standard` stands for in a list."""

_MORE: Final = "whoever runs this installation can allow more"
_MAX_FINDINGS: Final = 20
_MAX_DEPTH: Final = 3
"""Of code within magics within code."""

_NAMES: Final = frozenset(
    {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "locals", "open", "vars"}
)
"""Of Python's own functions: they run text, read files, or give everything by name."""
_BY_NAME: Final = frozenset({"delattr", "getattr", "hasattr", "setattr"})
_DUNDER: Final = re.compile(r"__\w+__")
_HARMLESS: Final = re.compile(
    "__(?:abs|add|and|bool|call|contains|debug|delitem|doc|divmod|enter|eq|exit|float|floordiv|format|ge|getitem|gt|hash|"
    "iadd|index|init|int|invert|isub|iter|le|len|lt|matmul|mod|mul|name|ne|neg|next|or|post_init|pow|radd|repr|reversed|"
    "rmul|round|rsub|rtruediv|setitem|str|sub|truediv|version|xor)__"
)
"""Those that lead nowhere."""
_INTERNAL: Final = re.compile("(?:ag|co|cr|f|gi|tb)_(?:back|builtins|code|frame|globals|locals|next)|func_globals|mro")
_MODULE: Final = re.compile(
    "asyncio|builtins|cffi|codeop|ctypes|ctypeslib|distutils|f2py|ftplib|gc|importlib|marshal|multiprocessing|os|pathlib|"
    "pickle|pkgutil|pty|runpy|shutil|smtplib|socket|socketserver|ssl|subprocess|sys|telnetlib|tempfile|urllib|webbrowser|"
    "zipimport"
)
"""Modules that libraries import, too, and through which one gets at everything: `pandas.io.common.os`."""
_UNPICKLING: Final = frozenset({"read_pickle", "to_pickle"})
_MAGICS: Final = frozenset({"capture", "matplotlib", "pinfo", "pinfo2", "precision", "time", "timeit", "who", "whos"})
_MAGICS_WITH_CODE: Final = frozenset({"capture", "time", "timeit"})
_OPTIONS: Final = re.compile(r"^(?:\s*-[a-zA-Z]\s*\d*(?=\s))*")
_IN_BRACES: Final = re.compile(r"\{[^{}]*__\w+__")
_TELLING: Final = re.compile(r"__(?:import|builtins|subclasses|globals|loader|code|mro|bases)__")


class Finding(NamedTuple):
    """Something that is not allowed."""

    line: int
    """From 1; with magics, of the code that they become."""
    column: int
    """From 1."""
    what: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.what}: {self.why}"


class Report(NamedTuple):
    """What was found in code, in its order; and what would have been allowed."""

    findings: tuple[Finding, ...]
    allowed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        if self.ok:
            return "allowed"
        return "\n".join([*map(str, self.findings), f"allowed imports: {', '.join(self.allowed) or 'none'}; {_MORE}"])


class CodeNotAllowed(InputRejected):
    """Code was refused before any of it ran. IPython knows the base: it does not run the code, and shows the text."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: nothing has run", *str(self).splitlines()]


def expanded(allowed: Iterable[str]) -> tuple[str, ...]:
    """Return a list of modules with `standard` written out, each once."""
    names = [name for item in allowed for name in (STANDARD if item == "standard" else (item,))]
    return tuple(dict.fromkeys(names))


def validate_code(code: str, allowed: Iterable[str] = STANDARD) -> Report:
    """Return what is not allowed in a cell.

    Parameters
    ----------
    code
        Python with IPython's magics, of any length and content.
    allowed
        Modules that may be imported, with all that is below them; `standard` stands for `STANDARD`.
    """
    names = expanded(allowed)
    return Report(tuple(_some(_found_in(code, names, 0))), names)


def enforce(shell: Any, allowed: Iterable[str]) -> None:
    """Have an IPython shell refuse what is not allowed."""
    shell.ast_transformers.append(_Gate(expanded(allowed)))


class _Gate:
    """What IPython calls a transformer of syntax trees: it changes nothing and refuses some."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed

    def visit(self, tree: ast.AST) -> ast.AST:
        try:
            report = Report(tuple(_some(_Check(self._allowed, 0).findings(tree))), self._allowed)
        except Exception as error:  # noqa: BLE001  IPython would go on without a transformer that fails
            refused = Finding(1, 1, "the code", f"cannot be checked ({type(error).__name__})")
            report = Report((refused,), self._allowed)
        if not report.ok:
            raise CodeNotAllowed(report)
        return tree


def _is_internal(name: str) -> bool:
    return bool(_DUNDER.fullmatch(name)) and not _HARMLESS.fullmatch(name)


def _some(findings: Iterable[Finding]) -> list[Finding]:
    """Return so many findings at most, each once and in the order of the code."""
    found: dict[Finding, None] = {}
    for finding in findings:
        found[finding] = None
        if len(found) >= _MAX_FINDINGS:
            break
    return sorted(found)


def _found_in(code: str, allowed: tuple[str, ...], depth: int) -> Iterator[Finding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts, which is for the kernel to say
            tree = ast.parse(TransformerManager().transform_cell(code))
    except SyntaxError as error:
        yield Finding(error.lineno or 1, error.offset or 1, "the code", f"is no Python: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL, or nested too deeply for the parser
        yield Finding(1, 1, "the code", f"is no Python: {error or type(error).__name__}")
    else:
        yield from _Check(allowed, depth).findings(tree)


class _Check:
    """The rules, each a method for one kind of node that yields what it finds: what, and why."""

    def __init__(self, allowed: tuple[str, ...], depth: int) -> None:
        self._allowed = allowed
        self._depth = depth
        self._magics: set[ast.AST] = set()
        """Names of `get_ipython` within calls that have been looked at."""

    def findings(self, tree: ast.AST) -> Iterator[Finding]:
        for node in ast.walk(tree):
            rule = getattr(self, f"_{type(node).__name__}", None)
            for what, why in rule(node) if rule else ():
                yield Finding(getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1, what, why)

    # The names are those of ast's classes, as in ast.NodeVisitor.

    def _Import(self, node: ast.Import) -> Iterator[tuple[str, str]]:  # noqa: N802
        for alias in node.names:
            if not self._may_import(alias.name):
                yield f"import {alias.name}", "not among the allowed imports"

    def _ImportFrom(self, node: ast.ImportFrom) -> Iterator[tuple[str, str]]:  # noqa: N802
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            what = f"from {module} import {alias.name}"
            if node.level:
                yield what, "relative imports are not allowed"
            elif not (self._may_import(module) or self._may_import(f"{module}.{alias.name}")):
                yield what, "not among the allowed imports"
            elif alias.name == "*":
                yield what, "name what is wanted: a star may replace anything"
            else:
                for _, why in self._of_attribute(alias.name):
                    yield what, why

    def _may_import(self, module: str) -> bool:
        parts = module.split(".")
        allowed = any(parts[: len(name.split("."))] == name.split(".") for name in self._allowed)
        return allowed and not any(True for part in parts[1:] for _ in self._of_attribute(part))

    def _Name(self, node: ast.Name) -> Iterator[tuple[str, str]]:  # noqa: N802
        if not isinstance(node.ctx, ast.Load):
            return
        if node.id in _NAMES:
            yield node.id, "not among the allowed functions"
        elif node.id == "get_ipython" and node not in self._magics:
            yield node.id, "the shell is out of bounds"
        elif _is_internal(node.id):
            yield node.id, "leads to Python's internals"

    def _Attribute(self, node: ast.Attribute) -> Iterator[tuple[str, str]]:  # noqa: N802
        yield from self._of_attribute(node.attr)

    def _MatchClass(self, node: ast.MatchClass) -> Iterator[tuple[str, str]]:  # noqa: N802
        for name in node.kwd_attrs:
            yield from self._of_attribute(name)

    def _of_attribute(self, name: str) -> Iterator[tuple[str, str]]:
        if _is_internal(name) or _INTERNAL.fullmatch(name):
            yield f".{name}", "leads to Python's internals"
        elif _MODULE.fullmatch(name) and name not in self._allowed:
            yield f".{name}", "leads to a module that may not be imported; write a column as ['…']"
        elif name in _UNPICKLING:
            yield f".{name}", "a pickle runs whatever is in it"

    def _Constant(self, node: ast.Constant) -> Iterator[tuple[str, str]]:  # noqa: N802
        if isinstance(node.value, str) and (found := _TELLING.search(node.value) or _IN_BRACES.search(node.value)):
            yield repr(found[0]), "leads to Python's internals"

    def _Call(self, node: ast.Call) -> Iterator[tuple[str, str]]:  # noqa: N802
        if isinstance(node.func, ast.Name) and node.func.id in _BY_NAME and len(node.args) > 1:
            yield from self._of_dynamic_attribute(node.func.id, node.args[1])
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and not keyword.value.value
            ):
                yield "allow_pickle", "a pickle runs whatever is in it"
        match node.func:
            case ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython") as name), attr=method):
                self._magics.add(name)
                yield from self._of_shell(method, node.args)
            case _:
                pass

    def _of_dynamic_attribute(self, function: str, name: ast.expr) -> Iterator[tuple[str, str]]:
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield from self._of_attribute(name.value)
        else:
            yield function, "the name of the attribute must be written out"

    def _of_shell(self, method: str, arguments: list[ast.expr]) -> Iterator[tuple[str, str]]:
        """Look at what a magic or a shell command becomes: a call of a method of the shell."""
        texts = [item.value for item in arguments if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        if method in ("system", "getoutput", "getoutput_system"):
            yield f"!{texts[0] if texts else ''}"[:60], "shell commands are not allowed"
        elif method not in ("run_line_magic", "run_cell_magic") or len(texts) != len(arguments) or len(texts) < 2:
            yield f"get_ipython().{method}", "the shell is out of bounds"
        elif texts[0] not in _MAGICS:
            yield ("%%" if method == "run_cell_magic" else "%") + texts[0], "not among the allowed magics"
        elif texts[0] in _MAGICS_WITH_CODE:
            yield from self._of_code_within(texts[0], _OPTIONS.sub("", texts[1]) if texts[0] != "capture" else "")
            yield from self._of_code_within(texts[0], texts[2] if len(texts) > 2 else "")

    def _of_code_within(self, magic: str, code: str) -> Iterator[tuple[str, str]]:
        if self._depth >= _MAX_DEPTH:
            yield f"%{magic}", "nested too deeply"
            return
        for finding in _found_in(code, self._allowed, self._depth + 1):
            yield finding.what, f"{finding.why} (line {finding.line} within %{magic})"
