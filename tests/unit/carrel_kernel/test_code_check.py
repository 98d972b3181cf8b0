"""The check of code before it runs: what it lets through, what it finds, and, honestly, what it does not find.

Plan
- What data analysis is made of is allowed: the libraries of the list, classes, magics for time and pictures.
- A table of ways around a list of imports, each found with its line and reason; and one of ways that are not found,
  which is why the check is no boundary: whoever closes one moves it to the other table.
- Reports: line, column, what, why, what is allowed; bounded.
- Any text at all gets a report, and no error (Hypothesis).
- In IPython: nothing of a refused cell runs, whatever way it comes; the rest runs as ever; a check that fails refuses.
"""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from carrel_kernel.inside import code_check
from carrel_kernel.inside.code_check import STANDARD, CodeNotAllowed, Finding, enforce, validate_code

ALLOWED = [
    "",
    "1 + 1",
    "import pandas as pd, numpy as np\npd.DataFrame({'a': np.zeros(3)})",
    "from sklearn.linear_model import LinearRegression\nimport sklearn.metrics",
    "import matplotlib.pyplot as plt\nplt.plot([1]); plt.show()",
    "import xgboost, seaborn as sns, ta",
    "import pandas as pd\ndf = pd.read_csv('data/sales.csv')\ndf['os'].mean()\ndf.code, df.io, df.types",
    "class Model:\n    def __init__(self): super().__init__()\n    def __repr__(self): return self.__doc__ or ''",
    "print(f'{1 + 1:>{5}} {{braces}}', '{}'.format(1), '__init__ is a method')",
    "[x for x in range(3) if x]; {k: v for k, v in zip('ab', [1, 2])}; (lambda x: x)(1)",
    "getattr(1, 'real'); hasattr([], 'append'); sorted([1]); isinstance(1, int)",
    "%matplotlib inline\n1",
    "%time sum(range(10))",
    "%timeit -n 10 -r 2 sum(range(10))",
    "%%time\nimport numpy\nnumpy.zeros(3)",
    "%%capture out --no-stderr\nprint(1)",
    "len?",
    "import pandas as pd\npd.DataFrame.merge??",
    "await something\nasync def f(): yield",
    "if __name__ == '__main__': print(__doc__)",
    "match {'a': 1}:\n    case {'a': int(real=x)}: x",
    "eval_result = 1; opened = 2; def_exec = eval_result",
]


@pytest.mark.parametrize("code", ALLOWED)
def test_what_analysis_is_made_of_is_allowed(code: str) -> None:
    report = validate_code(code)
    assert report.ok, str(report)
    assert str(report) == "allowed"


FOUND = [
    ("import os", "import os"),
    ("import pandas, os.path as p", "import os.path"),
    ("from os import system", "from os import system"),
    ("from pandas import *", "from pandas import *"),
    ("from . import x", "from . import x"),
    ("from ..pandas import x", "from ..pandas import x"),
    ("def f():\n    import socket", "import socket"),
    ("import pandasx", "import pandasx"),
    ("import numpy.ctypeslib", "import numpy.ctypeslib"),
    ("from numpy import ctypeslib", "from numpy import ctypeslib"),
    ("from pandas.io.common import os", "from pandas.io.common import os"),
    ("import pandas as pd\npd.io.common.os.system('ls')", ".os"),
    ("import matplotlib\nmatplotlib.sys.modules", ".sys"),
    ("__import__('os')", "__import__"),
    ("f = __import__", "__import__"),
    ("import importlib", "import importlib"),
    ("eval('1')", "eval"),
    ("run = exec\nrun('1')", "exec"),
    ("compile('1', '', 'eval')", "compile"),
    ("open('/etc/passwd')", "open"),
    ("list(map(open, ['/etc/passwd']))", "open"),
    ("breakpoint()", "breakpoint"),
    ("globals()['x']", "globals"),
    ("vars()", "vars"),
    ("\uff45val('1')", "eval"),
    ("().__class__", ".__class__"),
    ("().__class__.__bases__[0].__subclasses__()", ".__subclasses__"),
    ("object.__subclasses__()", ".__subclasses__"),
    ("type.mro(int)", ".mro"),
    ("(lambda: 0).__globals__", ".__globals__"),
    ("print.__self__", ".__self__"),
    ("(x for x in ()).gi_frame.f_builtins", ".gi_frame"),
    ("try: 1/0\nexcept Exception as e: e.__traceback__.tb_frame.f_globals", ".tb_frame"),
    ("getattr((), '__class__')", ".__class__"),
    ("getattr(pd, 'o' + 's')", "getattr"),
    ("getattr(pd.io.common, name)", "getattr"),
    ("setattr(x, '__class__', y)", ".__class__"),
    ("'{0.__class__}'.format(1)", "'{0.__class__'"),
    ("'{0.a[__globals__]}'.format(1)", "'__globals__'"),
    ("x = '__subclasses__'", "'__subclasses__'"),
    ("f'{().__class__}'", ".__class__"),
    ("__builtins__", "__builtins__"),
    ("__loader__", "__loader__"),
    ("match 1:\n    case object(__class__=c): c", ".__class__"),
    ("@eval\ndef f(): pass", "eval"),
    ("def f(x=open): pass", "open"),
    ("def f(x: eval('1')): pass", "eval"),
    ("class C(metaclass=exec): pass", "exec"),
    ("[eval for _ in 'a']", "eval"),
    ("!ls", "!ls"),
    ("files = !ls -l", "!ls -l"),
    ("!!ls", "!ls"),
    ("%env", "%env"),
    ("%run script.py", "%run"),
    ("%load_ext x", "%load_ext"),
    ("%system ls", "%system"),
    ("%%bash\nls", "%%bash"),
    ("%%python\nimport os", "%%python"),
    ("%%writefile x\ny", "%%writefile"),
    ("%time import os", "import os"),
    ("%timeit -n 1 -r 1 __import__('os')", "__import__"),
    ("%%time\nimport os", "import os"),
    ("%%timeit import os\n1", "import os"),
    ("%%capture\n!ls", "!ls"),
    ("%%time\n%%time\n%%time\n%%time\n%%time\nimport os", "%time"),
    ("x = %time eval('1')", "eval"),
    ("get_ipython()", "get_ipython"),
    ("get_ipython().system('ls')", "!ls"),
    ("get_ipython().ast_transformers.clear()", "get_ipython"),
    ("get_ipython().run_cell_magic('bash', '', 'ls')", "%%bash"),
    ("get_ipython().run_line_magic(name, '')", "get_ipython().run_line_magic"),
    ("shell = get_ipython", "get_ipython"),
    ("import pandas as pd\npd.read_pickle('x')", ".read_pickle"),
    ("import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle"),
    ("import numpy as np\nnp.load('x', allow_pickle=flag)", "allow_pickle"),
    ("def f(:", "the code"),
    ("\0", "the code"),
    ("(" * 10_000, "the code"),
]


@pytest.mark.parametrize(("code", "what"), FOUND, ids=[code[:40] for code, _ in FOUND])
def test_a_way_around_is_found(code: str, what: str) -> None:
    report = validate_code(code)
    assert what in [finding.what for finding in report.findings], str(report)


NOT_FOUND = [
    "import pandas as pd\npd.read_csv('/etc/passwd')",
    "import pandas as pd\npd.read_csv('http://example.com/')",
    "import pandas as pd\npd.eval('1')",
    "import pandas as pd\npd.DataFrame({'a': [1]}).query('@pd.io')",
    "import numpy as np\nnp.fromfile('/etc/passwd')",
    "import sklearn.utils as u\nu.parallel",
    "from matplotlib.animation import FFMpegWriter",
    "''.join(['__imp', 'ort__'])",
    "operator = [].append",
    "while True: pass",
    "[0] * 10**12",
]


@pytest.mark.parametrize("code", NOT_FOUND)
def test_what_is_not_found(code: str) -> None:
    assert validate_code(code).ok


def test_a_report_says_where_what_why_and_what_is_allowed() -> None:
    report = validate_code("x = 1\nif x:\n    import os\ny = eval", ["pandas", "numpy"])
    assert report.findings == (
        Finding(3, 5, "import os", "not among the allowed imports"),
        Finding(4, 5, "eval", "not among the allowed functions"),
    )
    assert not report.ok
    assert str(report) == (
        "line 3, column 5: import os: not among the allowed imports\n"
        "line 4, column 5: eval: not among the allowed functions\n"
        "allowed imports: pandas, numpy; whoever runs this installation can allow more"
    )
    assert str(validate_code("import os", [])).endswith(
        "allowed imports: none; whoever runs this installation can allow more"
    )


def test_the_list_decides() -> None:
    assert validate_code("import math, numpy, sklearn.svm", ["standard", "math", "numpy"]).allowed == (
        *STANDARD,
        "math",
    )
    assert validate_code("import math, numpy", ["standard", "math"]).ok
    assert not validate_code("import numpy", ["math"]).ok
    assert validate_code(
        "import scipy.stats\nfrom scipy import stats\nfrom scipy.stats import norm", ["scipy.stats"]
    ).ok
    assert not validate_code("import scipy", ["scipy.stats"]).ok
    assert not validate_code("from scipy import linalg", ["scipy.stats"]).ok
    assert validate_code("import os\nos.path.join('a')", ["os"]).ok


def test_findings_are_bounded_and_each_comes_once() -> None:
    report = validate_code("\n".join(f"import m{number}" for number in range(100)))
    assert len(report.findings) == 20
    assert len(validate_code("from os import a; from os import a").findings) == 2
    assert len(validate_code("().__class__").findings) == 1


SNIPPETS = st.sampled_from([code for code, _ in FOUND] + ALLOWED)


@settings(max_examples=300)
@given(st.text() | st.lists(SNIPPETS, max_size=3).map("\n".join) | st.tuples(SNIPPETS, st.text()).map("".join))
def test_any_text_gets_a_report(code: str) -> None:
    report = validate_code(code)
    assert report.ok == (not report.findings)
    assert str(report)
    assert all(finding.line >= 1 and finding.what and finding.why for finding in report.findings)


@pytest.fixture
def shell() -> InteractiveShell:
    made = InteractiveShell()
    enforce(made, ["standard", "json"])
    return made


def test_in_ipython_nothing_of_a_refused_cell_runs(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("ran = 1\nimport os")
    assert isinstance(result.error_before_exec, CodeNotAllowed)
    assert result.error_before_exec.report.findings == (Finding(2, 1, "import os", "not among the allowed imports"),)
    assert "ran" not in shell.user_ns
    shown = capsys.readouterr().out
    assert "CodeNotAllowed: nothing has run" in shown
    assert "allowed imports: pandas, " in shown
    assert "Traceback" not in shown
    for code in ("%%time\nran = 1\nimport os", "%time __import__('os')", "!touch ran", "%%bash\nls"):
        assert isinstance(shell.run_cell(code).error_before_exec, CodeNotAllowed)
    assert "ran" not in shell.user_ns


def test_in_ipython_the_rest_runs_as_ever(shell: InteractiveShell) -> None:
    assert shell.run_cell("import json\njson.dumps([1])").result == "[1]"
    assert shell.run_cell("%%time\nx = 5").success
    assert shell.user_ns["x"] == 5
    assert shell.run_cell("def f(:").error_before_exec is not None
    assert shell.run_cell("1/0").error_in_exec is not None


def test_a_check_that_fails_refuses(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(code_check._Check, "findings", broken)
    for _ in range(2):  # IPython takes no transformer away that refuses
        result = shell.run_cell("1")
        assert isinstance(result.error_before_exec, CodeNotAllowed)
        assert "cannot be checked (RuntimeError)" in str(result.error_before_exec)


def test_a_tree_without_places_is_checked() -> None:
    gate = code_check._Gate(())
    with pytest.raises(CodeNotAllowed):
        gate.visit(ast.Module([ast.Expr(ast.Name("eval", ast.Load()))], []))
