"""Settings of the host: flags, variables, their order, and what is refused with words that help."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from carrel_kernel.settings import PREFIX, Settings, load

NEEDED = ["--host-id=h", "--keys=/keys.json"]


def test_two_are_needed_and_the_rest_has_defaults() -> None:
    found = load(NEEDED, {})
    assert (found.host_id, found.keys) == ("h", Path("/keys.json"))
    assert found.listen == "tcp:0.0.0.0:8888"
    assert found.orphan_timeout == 0.0


def test_every_setting_can_be_a_variable_and_a_flag_wins() -> None:
    values = {
        **{PREFIX + field.name.upper(): "7" for field in fields(Settings)},
        f"{PREFIX}LISTEN": "unix:/run/host.sock",
        f"{PREFIX}CLOSED_LISTEN": "tcp:0.0.0.0:8889",
        f"{PREFIX}LOG_LEVEL": "debug",
        f"{PREFIX}FORK_SERVER": "no",
        f"{PREFIX}FOLDER_AT_BIND": "no",
        f"{PREFIX}PRELOAD": "json, os.path,",
        f"{PREFIX}ALLOWED_IMPORTS": "standard",
    }
    found = load(["--max-queue=9"], values)
    assert found.max_queue == 9
    assert (found.host_id, found.keys, found.orphan_timeout, found.max_kernels) == ("7", Path("7"), 7.0, 7)
    assert (found.closed_listen, load(NEEDED, {}).closed_listen) == (("0.0.0.0", 8889), None)
    assert (found.listen, found.log_level) == ("unix:/run/host.sock", "debug")
    assert (found.fork_server, found.preload) == (False, ("json", "os.path"))
    assert (found.allowed_imports, load(NEEDED, {}).allowed_imports) == (("standard",), ())
    assert load([*NEEDED, "--preload="], {}).preload == ()


@pytest.mark.parametrize("address", ["tcp:127.0.0.1:0", "tcp:[::]:8888", "unix:/x.sock", "unix:relative.sock"])
def test_addresses(address: str) -> None:
    assert load([*NEEDED, f"--listen={address}"], {}).listen == address


def test_the_closed_port_may_be_one_of_ipv6() -> None:
    assert load([*NEEDED, "--closed-listen=tcp:[::1]:8889"], {}).closed_listen == ("::1", 8889)


@pytest.mark.parametrize(
    ("flags", "values", "says"),
    [
        ([], {}, "--host-id"),
        (["--host-id=h"], {}, "--keys"),
        ([*NEEDED, "--listen=tcp:8888"], {}, "must be unix:"),
        ([*NEEDED, "--listen=tcp:a:99999"], {}, "must be unix:"),
        ([*NEEDED, "--listen=unix:"], {}, "must be unix:"),
        ([*NEEDED, "--listen=ftp:a:1"], {}, "must be unix:"),
        ([*NEEDED, "--closed-listen=tcp:localhost:1"], {}, "with an IP address"),
        ([*NEEDED, "--closed-listen=tcp:127.0.0.1:65536"], {}, "with an IP address"),
        ([*NEEDED, "--closed-listen=unix:/x.sock"], {}, "with an IP address"),
        ([*NEEDED, "--max-kernels=0"], {}, "at least 1"),
        ([*NEEDED, "--max-kernels=many"], {}, "invalid"),
        ([*NEEDED, "--start-seconds=0"], {}, "greater than 0"),
        ([*NEEDED, "--start-seconds=nan"], {}, "greater than 0"),
        ([*NEEDED, "--grace-seconds=-1"], {}, "not be negative"),
        ([*NEEDED, "--fork-server=maybe"], {}, "yes or no"),
        ([*NEEDED, "--preload=a b"], {}, "names of modules"),
        ([*NEEDED, "--preload=--x"], {}, "names of modules"),
        ([*NEEDED, "--spare-kernels=-1"], {}, "0 or more"),
        ([*NEEDED, "--host=h"], {}, "unrecognized"),
        (NEEDED, {f"{PREFIX}SPOOL_BYTES": "-5"}, "at least 1"),
    ],
)
def test_what_is_wrong_is_said(
    flags: list[str], values: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load(flags, values)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
