"""What is known of the cluster: the newest that was heard of each object, whichever way it came.

Plan: versions by watch, by answer to a write and by list, in both orders; deletions and what comes late after them;
lists that find ghosts, and what is heard while they are read; each index after each change; own writes that the watch
owes. A property says that the order in which news of one object comes does not matter.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.carrel_operator.factories import POD_UID, session_class

from carrel_operator import store as module
from carrel_operator.builders.identity import hash_of
from carrel_operator.errors import ApiUnavailable
from carrel_operator.observed import PodView
from carrel_operator.store import Store

NS = "carrel-sessions"


def document(version: int, *, name: str = "desk", uid: str = "u", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NS, "uid": uid, "resourceVersion": str(version), **more}
    return {"metadata": metadata, "spec": {"seen": version}}


def owned_pod(
    version: int, *, owner: str = "owner", labels: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    owners = [{"kind": "AgentSession", "name": "desk", "uid": owner, "controller": True}]
    return document(version, **{"name": "p", "uid": POD_UID, **more}, ownerReferences=owners, labels=labels or {})


def seen(store: Store, name: str = "desk") -> int | None:
    found = store.find("AgentSession", NS, name)
    return None if found is None else found["spec"]["seen"]


@pytest.mark.parametrize("first", ["heard", "wrote", "read"])
@pytest.mark.parametrize("second", ["heard", "wrote", "read"])
def test_the_newer_one_wins_whichever_way_it_came(first: str, second: str):
    for versions in ((5, 6), (6, 5)):
        store = Store()
        getattr(store, first)("AgentSession", document(versions[0]))
        getattr(store, second)("AgentSession", document(versions[1]))
        assert seen(store) == 6


def test_versions_are_compared_as_numbers():
    store = Store()
    store.heard("AgentSession", document(10))
    store.heard("AgentSession", document(9))
    assert seen(store) == 10


def test_what_was_deleted_stays_so_whatever_comes_late():
    store = Store()
    store.heard("AgentSession", document(5))
    store.heard("AgentSession", document(7), deleted=True)
    for late in (store.heard, store.wrote, store.read):
        late("AgentSession", document(6))
        late("AgentSession", document(8))
    assert seen(store) is None
    store.heard("AgentSession", document(9, uid="another"))
    assert seen(store) == 9


def test_the_late_end_of_an_object_does_not_end_its_successor():
    store = Store()
    store.heard("AgentSession", document(9, uid="second"))
    store.heard("AgentSession", document(7, uid="first"), deleted=True)
    store.heard("AgentSession", document(6, uid="first"))
    assert store.is_there("AgentSession", NS, "desk", "second")
    assert not store.is_there("AgentSession", NS, "desk", "first")
    store.heard("AgentSession", document(5, uid="third"))  # an older one that nobody has said to be gone
    assert store.is_there("AgentSession", NS, "desk", "second")


def test_only_so_many_ends_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    store = Store()
    for number in range(4):
        store.gone("AgentSession", (NS, "desk"), f"u{number}")
    assert list(store._gone) == ["u2", "u3"]


@given(st.permutations(list(range(1, 7))), st.randoms(use_true_random=False))
def test_the_order_of_news_does_not_matter(order: list[int], chance: random.Random):
    store = Store()
    for version in order:
        getattr(store, chance.choice(["heard", "wrote", "read"]))("AgentSession", document(version))
    assert seen(store) == 6
    assert store.newest("AgentSession") == 6


async def parts(*documents: Any) -> AsyncGenerator[Any]:
    for one in documents:
        if isinstance(one, Exception):
            raise one
        yield one


async def test_a_whole_list_takes_ghosts_away_and_keeps_what_came_later():
    store = Store()
    for name, version in (("ghost", 3), ("same", 4), ("old", 5)):
        store.heard("AgentSession", document(version, name=name, uid=name))
    since = store.newest("AgentSession")
    store.heard("AgentSession", document(8, name="later", uid="later"))  # while the list was on its way
    listed = [
        document(4, name="same", uid="same"),
        document(6, name="old", uid="old"),
        document(7, name="new", uid="new"),
    ]
    news = [name async for (_, name), _ in store.replace("AgentSession", NS, parts(*listed), since=since)]
    assert sorted(news) == ["ghost", "new", "old"]
    assert sorted(name for _, name in store.names("AgentSession")) == ["later", "new", "old", "same"]
    assert seen(store, "old") == 6


async def test_a_list_that_breaks_off_takes_nobody_away_and_its_news_are_told():
    store, news = Store(), []
    store.heard("AgentSession", document(3, name="ghost", uid="ghost"))
    broken = parts(document(4, name="new", uid="new"), ApiUnavailable("away"))

    async def read() -> None:
        async for (_, name), _value in store.replace("AgentSession", NS, broken, since=3):
            news.append(name)

    with pytest.raises(ApiUnavailable):
        await read()
    assert news == ["new"]
    assert sorted(name for _, name in store.names("AgentSession")) == ["ghost", "new"]


async def test_of_a_list_one_document_is_held_at_a_time():
    class Watched(dict[str, Any]):
        """A document whose end is seen."""

    alive: list[weakref.ref[Watched]] = []

    async def listed() -> AsyncGenerator[Watched]:
        for number in range(1, 20):
            one = Watched(document(number, name=f"desk-{number}", uid=f"uid-{number}"))
            alive.append(weakref.ref(one))
            yield one
            del one
            assert sum(ref() is not None for ref in alive) <= 1

    store = Store()
    assert len([name async for name, _ in store.replace("AgentSession", NS, listed(), since=0)]) == 19


async def test_a_whole_list_of_one_namespace_says_nothing_of_others():
    store = Store()
    store.heard("AgentSession", document(3))
    assert [one async for one in store.replace("AgentSession", "another", parts(), since=9)] == []
    assert seen(store) == 3


def test_pods_are_found_by_their_owner_and_by_the_pool_that_they_came_from():
    store = Store()
    pool = document(1, name="warm", uid="pool-uid")
    store.heard("SessionPool", pool)
    store.heard("Pod", owned_pod(2, owner="pool-uid", labels={"carrel.dev/pool": hash_of("pool-uid")}))
    [pod] = store.pods_of("pool-uid")
    assert store.pool_of(pod) == (NS, "warm")
    assert store.pods_from("pool-uid") == 0
    store.wrote("Pod", owned_pod(3, owner="session-uid", labels={"carrel.dev/claimed-from": hash_of("pool-uid")}))
    assert store.pods_of("pool-uid") == []
    [pod] = store.pods_of("session-uid")
    assert store.pods_from("pool-uid") == 1
    assert store.pool_of(pod) == (NS, "warm")
    store.heard("Pod", owned_pod(4), deleted=True)
    assert (store.pods_of("session-uid"), store.pods_from("pool-uid")) == ([], 0)
    assert (dict(store._pods_of), dict(store._pods_from)) == ({}, {})
    store.heard("SessionPool", document(5, name="warm", uid="pool-uid"), deleted=True)
    assert store.pool_of(pod) is None


def test_foreign_policies_are_known_until_they_go():
    store = Store()
    for number, name in enumerate(("carrel-kernel-deny-all", "carrel-kernel-port", "open", "also-open"), start=1):
        store.heard("NetworkPolicy", document(number, name=name, uid=name))
    assert [one["metadata"]["name"] for one in store.foreign_in(NS)] == ["also-open", "open"]
    store.heard("NetworkPolicy", document(9, name="open", uid="open"), deleted=True)
    assert [one["metadata"]["name"] for one in store.foreign_in(NS)] == ["also-open"]
    assert store.foreign_in("another") == []


def test_what_the_watch_owes_is_measured_from_the_first_write(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    store = Store()
    assert store.oldest_unheard() == 0
    store.wrote("AgentSession", document(5, name="a", uid="a"))
    now = 110.0
    store.wrote("AgentSession", document(6, name="b", uid="b"))
    assert store.oldest_unheard() == 10
    store.heard("AgentSession", document(4, name="a", uid="a"))  # an earlier version is not what was written
    assert store.oldest_unheard() == 10
    store.heard("AgentSession", document(5, name="a", uid="a"))
    assert store.oldest_unheard() == 0
    now = 115.0
    assert store.oldest_unheard() == 5
    store.heard("AgentSession", document(9, name="b", uid="b"), deleted=True)
    assert store.oldest_unheard() == 0


def test_a_write_that_the_watch_brought_first_is_not_owed():
    store = Store()
    store.heard("AgentSession", document(5))
    store.wrote("AgentSession", document(5))
    assert not store._awaited


def test_of_pods_and_classes_only_a_view_is_kept_and_of_others_only_what_is_read():
    store = Store()
    store.heard("Pod", owned_pod(1))
    store.heard("AgentSession", document(2, managedFields=[{"manager": "kubectl"}]))
    whole = session_class().dump()
    whole["metadata"] |= {"uid": "c", "resourceVersion": "3"}
    whole["metadata"].pop("namespace", None)
    store.heard("SessionClass", whole)
    assert isinstance(store.find("Pod", NS, "p"), PodView)
    assert "managedFields" not in store.find("AgentSession", NS, "desk")["metadata"]
    assert store.find("SessionClass", "", "standard").metadata.name == "standard"
    assert len(store) == 3


def test_a_class_that_cannot_be_understood_is_there_and_is_none():
    store = Store()
    store.heard(
        "SessionClass", {"metadata": {"name": "odd", "uid": "c", "resourceVersion": "3"}, "spec": {"images": []}}
    )
    assert store.names("SessionClass") == [("", "odd")]
    assert list(store.all("SessionClass")) == [None]
