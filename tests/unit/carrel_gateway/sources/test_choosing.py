"""Which value holds, for any layers at all: compared with the rule in its plainest form.

Plan: of random layers and names the first layer that says something holds, and in it the first name; no message holds a
value; whoever says nothing changes nothing.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from carrel_gateway.sources.choosing import Names, choose
from carrel_gateway.sources.names import names_of
from carrel_gateway.sources.reading import Kind, Layer

NAMES = Names(
    {"port": names_of("port"), "model": names_of("model", ["LLM_MODEL", "OPENAI_MODEL"])}, frozenset({"model"})
)
VARIABLES = [variable for variables in NAMES.of.values() for variable in variables]
VALUES = st.sampled_from(["", "value-a", "value-b", "value-c"])
LAYERS = st.lists(
    st.dictionaries(st.sampled_from([*VARIABLES, "CARREL_PROT", "HOME", "CARREL_SERVER"]), VALUES), max_size=4
)


@given(LAYERS)
def test_the_first_place_and_in_it_the_first_name(contents):
    layers = [Layer(Kind.ENV_FILE, f"file-{number}", content) for number, content in enumerate(contents)]
    found = choose(NAMES, layers)
    for setting, variables in NAMES.of.items():
        said = [
            (number, name, content[name])
            for number, content in enumerate(contents)
            for name in sorted(variables, key=lambda name: not content.get(name))
            if name in content
        ]
        if not said:
            assert setting not in found.values
            continue
        number, name, value = said[0]
        assert found.values[setting] == (value or None if setting == "model" else value)
        assert (found.origins[setting].place, found.origins[setting].name) == (f"file-{number}", name)
    assert len(found.problems) == sum("CARREL_PROT" in content for content in contents)
    assert "value-" not in str(found.problems + found.warnings)


@given(
    LAYERS,
    st.dictionaries(st.sampled_from(["HOME", "CARREL_SERVER", "CARREL_KERNEL_LISTEN"]), VALUES),
    st.integers(0, 4),
)
def test_who_says_nothing_changes_nothing(contents, nothing, where):
    layers = [Layer(Kind.ENV_FILE, "file", content) for content in contents]
    more = [*layers[:where], Layer(Kind.ENV_FILE, "file", nothing), *layers[where:]]
    assert choose(NAMES, layers) == choose(NAMES, more)
