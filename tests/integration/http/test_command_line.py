"""The command line as a person uses it: processes, exit codes, what is printed.

Plan: `run` without a server, with the running one of its folder, and with a named one; its files on disk; failures with
their code and one line; `serve` refuses what it must; `demo` shows the example; `sessions`, `version`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from tests.support.serving import SALES, environment

pytestmark = pytest.mark.timeout(400)  # several programs, one after the other
QUESTION = "What is the total of units per region? Show it as a plot."


def carrel(*arguments, cwd, timeout=110, **settings):
    return subprocess.run(
        [sys.executable, "-m", "carrel_cli", *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def table(tmp_path):
    (tmp_path / "sales.csv").write_text(SALES)
    return tmp_path


def assert_is_a_finished_run(done, folder):
    assert done.returncode == 0, done.stdout + done.stderr
    places = [done.stdout.index(part) for part in ("Plan", "Code", "Output", "Answer", "Saved")]
    assert places == sorted(places)
    assert str(sum(40 + 3 * month for month in range(1, 13))) in done.stdout.replace(",", "")
    (picture,) = list(folder.rglob("*.png"))[:1]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_run_starts_what_it_needs_and_leaves_nothing(table):
    done = carrel("run", QUESTION, "--data", "sales.csv", "--data-dir", str(table / "desk"), cwd=table)
    assert_is_a_finished_run(done, table / "carrel-out")
    assert not (table / "desk" / "server.json").exists()
    listed = carrel("sessions", "list", "--data-dir", str(table / "desk"), cwd=table)
    assert listed.returncode == 0, listed.stderr
    assert "What is the total" in listed.stdout


def test_run_uses_the_server_that_is_there(gateway, table):
    before = json.loads((gateway.data_dir / "server.json").read_text())
    assert before["pid"] == gateway.process.pid
    assert "key" not in before
    done = carrel("run", QUESTION, "-d", "sales.csv", "-o", "made", CARREL_DATA_DIR=str(gateway.data_dir), cwd=table)
    assert_is_a_finished_run(done, table / "made")
    with gateway.client() as api:
        assert QUESTION[:20] in {item["title"][:20] for item in api.get("/api/sessions").json()["items"]}


def test_run_with_a_named_server(gateway, table):
    done = carrel("run", QUESTION, "-d", "sales.csv", "--server", gateway.url, CARREL_API_KEY=gateway.key, cwd=table)
    assert_is_a_finished_run(done, table / "carrel-out")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "mean", "--data", "none.csv"], 2, "carrel: none.csv: no such file"),
        (["run", "mean", "--out", "sales.csv"], 2, "sales.csv is not a folder; choose another with --out"),
        (["run", "mean", "--data", "."], 2, "carrel: .: not a file"),
        (["run", "  "], 2, "carrel: the question is empty"),
        (["run"], 2, "Missing argument"),
        (["run", "mean", "--colour", "red"], 2, "No such option"),
        (["run", "mean", "--server", "localhost:8000"], 3, "carrel: localhost:8000 is no address of a server"),
        (["run", "mean", "--server", "http://127.0.0.1:9"], 3, "carrel: no Carrel server answers at http://127.0.0.1:9"),
        (["serve", "--host", "0.0.0.0"], 1, "carrel: refusing to listen on 0.0.0.0: the local executor"),
        (["serve", "--port", "99999"], 2, "carrel: port: Input should be less than or equal to 65535"),
        (["frobnicate"], 2, "No such command"),
    ],
)  # fmt: skip
def test_refusals(table, arguments, code, message):
    done = carrel(*arguments, cwd=table, CARREL_DATA_DIR=str(table / "desk"))
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr.replace("│", "").replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_unknown_model_of_a_running_server(gateway, table):
    done = carrel("run", "mean", "--model", "gpt-9", CARREL_DATA_DIR=str(gateway.data_dir), cwd=table)
    assert done.returncode == 1
    assert "gpt-9" in done.stderr


def test_wrong_key(gateway, table):
    done = carrel("run", "mean", "--server", gateway.url, CARREL_API_KEY="wrong", cwd=table)
    assert (done.returncode, done.stderr.strip()) == (1, "carrel: that API key is not known here")


def test_model_without_a_key(table):
    done = carrel("run", "mean", "--model", "openai/gpt-4o-mini", "--data-dir", str(table / "desk"), cwd=table)
    assert done.returncode == 1
    assert "set LLM_API_KEY" in done.stderr


def test_run_that_fails_has_another_exit_code(table):
    desk = str(table / "desk")
    done = carrel("run", QUESTION, "-d", "sales.csv", "--data-dir", desk, cwd=table, CARREL_AGENT_MAX_STEPS="1")
    assert done.returncode == 1, done.stdout
    assert "The run failed: No answer after 1 calls of the model." in done.stdout


def test_second_server_on_one_folder(gateway, table):
    done = carrel("serve", "--port", "0", cwd=table, CARREL_DATA_DIR=str(gateway.data_dir))
    assert done.returncode == 1
    assert done.stderr.startswith("carrel: ")
    assert "Traceback" not in done.stderr


def test_port_that_is_taken(table):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = carrel("serve", "--port", port, cwd=table, CARREL_DATA_DIR=str(table / "desk"))
    assert (done.returncode, done.stderr.strip()) == (
        1,
        f"carrel: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port",
    )


def test_demo(table):
    done = carrel("demo", "--port", "0", cwd=table, CARREL_DATA_DIR=str(table / "desk"), CARREL_DEMO_EXIT="1")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("Carrel is running: http://localhost:", "/#key=crl_", "Plan", "Code", "Output", "Answer"):
        assert part in done.stdout


def test_version(table):
    from carrel_wire import __version__

    assert carrel("version", cwd=table).stdout == f"carrel {__version__}\n"
