"""Refused environment names: the function, and that the rule of the schema is made from the same lists."""

import pytest

from carrel_api.environment import REFUSED_NAMES, REFUSED_PREFIXES, refused_name, refused_name_cel


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS", "PATH", "HOME", "CARREL_KERNEL_KEYS"]
)
def test_names_that_change_what_runs_are_refused(name: str):
    assert refused_name(name)


@pytest.mark.parametrize("name", ["MODE", "MY_PATH", "TZ", "ld_preload", "XLD_PRELOAD"])
def test_ordinary_names_are_not(name: str):
    assert not refused_name(name)


def test_the_rule_holds_every_name_and_prefix():
    text = refused_name_cel("self.name")
    assert all(f"'{name}'" in text for name in REFUSED_NAMES)
    assert all(f"self.name.startsWith('{prefix}')" in text for prefix in REFUSED_PREFIXES)
