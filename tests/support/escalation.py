"""Attack 26: any sequence of calls that the API lets through, by anybody, and nobody has more than they were given.

Two tenants with people of every role; whoever holds a key, a login or a ticket, also one that is good for nothing any
more, makes keys, gives roles, founds teams, takes people into them, shares sessions, invites, accepts, logs in and out,
moves between tenants. Each call goes to the real application. What it lets through must be what `rights_model` allows,
and after each step every credential that was ever handed out has at most the rights that the model says: so a call by
somebody who may not, or that gives more than its maker has, is found when it happens or when it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.account_desk import PASSWORD
from tests.support.escalation_stage import Stage
from tests.support.inside import Refused
from tests.support.rights_model import ADMIN, NONE, ROLES, Held, Invitation, Person, Session, Team, User

from carrel_gateway.storage.ids import new_id

T = TypeVar("T")

LOOKS, PAUSE = 20, 0.05
"""News of what is revoked take a turn of the event loop or two; never so many looks, with so many seconds between."""
_SOME = st.lists(st.sampled_from(sorted(ADMIN)), min_size=1, max_size=3, unique=True)
SCOPES = st.none() | _SOME | _SOME.map(lambda some: sorted(ADMIN.difference(some))) | st.just(["people:admin"])
"""Few rights, or nearly all, or that which gives others theirs: what is missing is what shows."""
NUMBER = st.integers(0, 999)


@dataclass(frozen=True)
class Draw:
    """What a move goes by; each takes what it needs."""

    by: int
    """Who does it."""
    one: int
    two: int
    role: str
    scopes: list[str] | None
    yes: bool
    sure: bool


DRAWS = st.builds(Draw, NUMBER, NUMBER, NUMBER, st.sampled_from(ROLES), SCOPES, st.booleans(), st.booleans())


class Escalation(RuleBasedStateMachine):
    """The machine; `machine_of` binds it to a stage."""

    stage: Stage

    @initialize()
    def begin(self) -> None:
        self.model = self.stage.gateway.call(self.stage.people)

    @rule(move=st.deferred(lambda: st.sampled_from(sorted(MOVES))), draw=DRAWS)
    def move(self, move: str, draw: Draw) -> None:
        """Do one thing. One rule for all: of many, hypothesis leaves most out of an example, and chains stay short."""
        MOVES[move](self, draw)

    # ------------------------------------------------------------------ asking

    def ask(self, held: Held | None, method: str, path: str, json: Any = None) -> httpx.Response:
        self.stage.steps += 1
        return self.stage.gateway.request(method, path, credential=held.secret if held else None, json=json)

    def let_through(self, name: str, answer: httpx.Response, *, allowed: bool) -> bool:
        """Return whether a call was let through; it must not be where the model does not allow it."""
        assert answer.status_code < 500, (name, answer.text)
        if not answer.is_success:
            return False
        assert allowed, f"{name} was let through ({answer.status_code}), by whoever may not: {answer.text}"
        self.stage.accepted[name] += 1
        return True

    def holder(self, number: int) -> Held:
        return _pick(self.model.held, number)

    def keep_login(self, tokens: dict[str, Any]) -> Held:
        owner = self.model.users[tokens["tenant_id"], tokens["user_id"]]
        held = Held("token", tokens["access_token"], tokens["login_id"], owner, refresh=tokens["refresh_token"])
        self.model.held.append(held)
        return held

    # ------------------------------------------------------------------ keys and tickets

    def make_key(self, by: int, whose: int | None, scopes: list[str] | None) -> None:
        maker = self.holder(by)
        owner = maker.owner if whose is None else _pick(list(self.model.users.values()), whose)
        rights, is_whole = maker.rights, maker.ceiling is None
        body = {"name": "x", "scopes": scopes, **({} if whose is None else {"user_id": owner.id})}
        answer = self.ask(maker, "POST", "/api/keys", body)
        there = self.model.users.get((maker.owner.tenant, owner.id), owner)
        if self.let_through("make_key", answer, allowed=self.model.may_make_key(maker, there, scopes)):
            grows = is_whole and there is maker.owner
            ceiling = frozenset(scopes) if scopes is not None else None if grows else rights
            made = answer.json()
            person = maker.maker or (maker.owner if maker.owner.kind == "person" else None)
            self.model.held.append(
                Held("key", made["key"], made["id"], there, ceiling, None if person is there else person)
            )

    def revoke_key(self, by: int, which: int) -> None:
        actor, key = self.holder(by), self.holder(which)
        may = key.owner is actor.owner or ("people:admin" in actor.rights and key.owner.tenant == actor.owner.tenant)
        answer = self.ask(actor, "DELETE", f"/api/keys/{key.id}")
        if self.let_through("revoke_key", answer, allowed=may and "keys:write" in actor.rights):
            key.ended = True

    def revoke_all_keys(self, by: int) -> None:
        actor = self.holder(by)
        answer = self.ask(actor, "DELETE", "/api/keys")
        if self.let_through("revoke_all_keys", answer, allowed="keys:write" in actor.rights):
            for held in self.model.held:
                held.ended |= held.kind == "key" and held.owner is actor.owner and held is not actor

    def make_ticket(self, by: int) -> None:
        maker = self.holder(by)
        answer = self.ask(maker, "POST", "/api/tickets")
        if self.let_through("make_ticket", answer, allowed="sessions:read" in maker.rights):
            self.model.tickets.append((answer.json()["ticket"], maker))

    def use_ticket(self, which: int, session: int) -> None:
        """Open a socket by a ticket, once, and send a message, which has code run."""
        if not self.model.tickets:
            return
        ticket, maker = self.model.tickets.pop(which % len(self.model.tickets))
        wanted = _pick([one for one in self.model.sessions if one.archived], session)
        offer = {"Sec-WebSocket-Protocol": f"carrel.ticket.{ticket}"}
        try:
            with self.stage.gateway.socket(f"/ws/chat/{wanted.id}", **offer) as socket:
                socket.send({"type": "message", "message": "hello"})
                code = socket.receive()["code"]
        except Refused:
            return
        if code == "session_not_found":
            return
        self.stage.accepted["use_ticket"] += 1
        assert wanted.is_read_by(maker), f"a ticket opened a socket ({code})"
        if code == "archived":
            assert wanted.is_changed_by(maker), "a message was taken from whoever may not write"
            assert "kernel:execute" in maker.rights, "a message was taken from whoever may not run code"

    def present_something_else(self, by: int) -> None:
        """What is no key and no access token does not become one."""
        held = self.holder(by)
        others = [held.refresh, *(ticket for ticket, _ in self.model.tickets[-1:])]
        others += [invitation.token for invitation in self.model.invitations[-1:]]
        for other in filter(None, others):
            assert self.ask(replace_secret(held, other), "GET", "/api/me").status_code == 401

    # ------------------------------------------------------------------ people

    def change_user(self, by: int, whom: int, role: str | None, disabled: bool | None) -> None:
        self._change(self.holder(by), _pick(list(self.model.users.values()), whom), role, disabled)

    def demote_a_sender(self, by: int, which: int, role: str | None, disabled: bool | None) -> None:
        """Have somebody who has sent an invitation be able to send it no longer."""
        if self.model.invitations:
            made = _pick(self.model.invitations, which)
            self._change(self.holder(by), made.maker or made.sender, role, disabled)

    def demote_a_maker(self, by: int, which: int, role: str | None, disabled: bool | None) -> None:
        """Have somebody who has made a key of a service account be less than it."""
        makers = [held.maker for held in self.model.held if held.maker is not None]
        self._change(self.holder(by), _pick(makers, which), role, disabled)

    def _change(self, actor: Held, named: User, role: str | None, disabled: bool | None) -> None:
        user = self.model.users.get((actor.owner.tenant, named.id))
        allowed = self.model.may_change(actor, user, role, disabled)
        asked = {"role": role, "disabled": disabled}
        body = {name: value for name, value in asked.items() if value is not None} or {"name": "y"}
        answer = self.ask(actor, "PUT", f"/api/users/{named.id}", body)
        if self.let_through("change_user", answer, allowed=allowed) and user is not None:
            user.role = role or user.role
            user.disabled = user.disabled if disabled is None else disabled

    def promote_oneself(self, by: int, role: str) -> None:
        """By the ways that are there for others, and by fields that a profile does not have."""
        actor = self.holder(by)
        for path, body in (
            ("/api/me", {"name": "x", "role": role, "rights": sorted(ADMIN), "kind": "service"}),
            ("/api/me/preferences", {"preferences": {"role": role, "rights": sorted(ADMIN)}}),
        ):
            self.let_through("profile", self.ask(actor, "PUT", path, body), allowed="profile:write" in actor.rights)
        user = actor.owner
        allowed = self.model.may_change(actor, user, role, None)
        answer = self.ask(actor, "PUT", f"/api/users/{user.id}", {"role": role})
        if self.let_through("promote_oneself", answer, allowed=allowed):
            user.role = role

    def add_service(self, by: int, role: str) -> None:
        actor = self.holder(by)
        answer = self.ask(actor, "POST", "/api/users", {"kind": "service", "name": "x", "role": role})
        if self.let_through("add_service", answer, allowed="people:admin" in actor.rights and actor.covers(role)):
            self.model.add_user(actor.owner.tenant, answer.json()["id"], role, "service")

    def invite(self, by: int, whom: int | None, role: str) -> None:
        actor = self.holder(by)
        email = f"{new_id().hex}@example.org" if whom is None else _pick(self.model.people, whom).email
        answer = self.ask(actor, "POST", "/api/invitations", {"email": email, "role": role})
        if self.let_through("invite", answer, allowed="people:admin" in actor.rights and actor.covers(role)):
            newest = self.ask(actor, "GET", "/api/invitations?limit=1").json()["items"][0]
            assert (newest["email"], newest["role"]) == (email, role)
            tenant, token = actor.owner.tenant, self.stage.mailed(email)
            made = Invitation(tenant, newest["id"], token, email, role, actor.owner, actor.maker)
            self.model.invitations.append(made)

    def take_invitation_back(self, by: int, which: int) -> None:
        if not self.model.invitations:
            return
        actor, made = self.holder(by), _pick(self.model.invitations, which)
        allowed = "people:admin" in actor.rights and actor.owner.tenant == made.tenant
        answer = self.ask(actor, "DELETE", f"/api/invitations/{made.id}")
        if self.let_through("take_invitation_back", answer, allowed=allowed and not made.gone):
            made.gone = True

    def accept_invitation(self, which: int) -> None:
        """Whoever was invited accepts, and logs in there."""
        if not self.model.invitations:
            return
        made = _pick(self.model.invitations, which)
        body = {"token": made.token, "name": "x", "password": PASSWORD}
        answer = self.ask(None, "POST", "/api/auth/accept", body)
        if not self.let_through("accept_invitation", answer, allowed=made.is_good):
            return
        made.gone = True
        person = next((one for one in self.model.people if one.email == made.email), None)
        if person is not None:
            self.model.add_user(made.tenant, person.id, made.role)
        tokens = self.log_in_as(made.email, made.tenant)
        if tokens is not None:
            if person is None:
                self.model.people.append(Person(tokens["user_id"], made.email))
            self.model.add_user(made.tenant, tokens["user_id"], made.role)
            self.keep_login(tokens)

    # ------------------------------------------------------------------ logins

    def log_in_as(self, email: str, tenant: str) -> dict[str, Any] | None:
        body = {"email": email, "password": PASSWORD, "tenant_id": tenant}
        answer = self.ask(None, "POST", "/api/auth/login", body)
        return answer.json() if answer.is_success else None

    def log_in(self, who: int, where: int) -> None:
        person, place = _pick(self.model.people, who), _pick(self.model.people, where)
        tenant = next(user.tenant for user in self.model.users.values() if user.id == place.id)
        tokens = self.log_in_as(person.email, tenant)
        if tokens is not None:
            user = self.model.users.get((tenant, person.id))
            assert user is not None, "logged in where they are nobody"
            assert not user.disabled, "logged in where they are disabled"
            self.stage.accepted["log_in"] += 1
            self.keep_login(tokens)

    def refresh(self, by: int) -> None:
        held = self.holder(by)
        if held.refresh is None:
            return
        answer = self.ask(None, "POST", "/api/auth/refresh", {"refresh_token": held.refresh})
        if self.let_through("refresh", answer, allowed=held.rights != NONE):
            self.keep_login(answer.json())

    def log_out(self, by: int, everywhere: bool) -> None:
        held = self.holder(by)
        path = "/api/auth/logout-everywhere" if everywhere else "/api/auth/logout"
        allowed = held.kind == "token" and "profile:write" in held.rights
        if self.let_through("log_out", self.ask(held, "POST", path), allowed=allowed):
            for other in list(self.model.held):
                if other is held or (everywhere and other.kind == "token" and other.owner.id == held.owner.id):
                    self.model.end_login(other.id)

    def switch(self, by: int, to: int) -> None:
        held, user = self.holder(by), _pick(list(self.model.users.values()), to)
        there = self.model.users.get((user.tenant, held.owner.id))
        allowed = held.kind == "token" and "profile:write" in held.rights and there is not None and not there.disabled
        answer = self.ask(held, "POST", "/api/auth/switch", {"tenant_id": user.tenant})
        if self.let_through("switch", answer, allowed=allowed):
            self.model.end_login(held.id)
            self.keep_login(answer.json())

    # ------------------------------------------------------------------ teams and sessions

    def found_team(self, by: int) -> None:
        actor = self.holder(by)
        answer = self.ask(actor, "POST", "/api/teams", {"name": new_id().hex})
        if self.let_through("found_team", answer, allowed="teams:write" in actor.rights):
            members = {actor.owner.id: "admin"}
            self.model.teams.append(Team(actor.owner.tenant, answer.json()["id"], members))

    def put_member(self, by: int, which: int, whom: int | None, role: str) -> None:
        actor, team = self.holder(by), _pick(self.model.teams, which)
        user = actor.owner if whom is None else _pick(list(self.model.users.values()), whom)
        allowed = team.is_led_by(actor) and (team.tenant, user.id) in self.model.users
        answer = self.ask(actor, "PUT", f"/api/teams/{team.id}/members/{user.id}", {"role": role})
        if self.let_through("put_member", answer, allowed=allowed):
            team.members[user.id] = role

    def remove_member(self, by: int, which: int, whom: int) -> None:
        actor, team = self.holder(by), _pick(self.model.teams, which)
        user = _pick(list(self.model.users.values()), whom)
        leaves = actor.owner.id == user.id and "profile:write" in actor.rights and team.tenant == actor.owner.tenant
        answer = self.ask(actor, "DELETE", f"/api/teams/{team.id}/members/{user.id}")
        if self.let_through("remove_member", answer, allowed=leaves or team.is_led_by(actor)):
            team.members.pop(user.id)

    def open_session(self, by: int) -> None:
        actor = self.holder(by)
        answer = self.ask(actor, "POST", "/api/sessions", {})
        if self.let_through("open_session", answer, allowed="sessions:write" in actor.rights):
            self.model.sessions.append(Session(actor.owner.tenant, answer.json()["id"], actor.owner.id))

    def share(self, by: int, what: int, which: int, access: str | None) -> None:
        """Share a session with a team, or no longer."""
        actor, session, team = self.holder(by), _pick(self.model.sessions, what), _pick(self.model.teams, which)
        path = f"/api/sessions/{session.id}/teams/{team.id}"
        answer = self.ask(actor, "PUT", path, {"access": access}) if access else self.ask(actor, "DELETE", path)
        own = session.owner == actor.owner.id or "tenant:admin" in actor.rights
        ends = access is None and own and session.is_changed_by(actor)
        if self.let_through("share", answer, allowed=ends or session.is_shared_by(actor, team)):
            session.shares.pop(team, None)
            if access:
                session.shares[team] = access

    def look(self, by: int) -> None:
        """See by asking what a credential may do with each session, and that it is told the rights that it has."""
        held = self.holder(by)
        foreign = [session for session in self.model.sessions if session.tenant != held.owner.tenant]
        for session in [*(one for one in self.model.sessions if one not in foreign), *foreign[-1:]]:
            path, name = f"/api/sessions/{session.id}", _relation(held, session)
            self.let_through(f"read {name}", self.ask(held, "GET", path), allowed=session.is_read_by(held))
            changed = self.ask(held, "PUT", path, {"title": "y"})
            self.let_through(f"change {name}", changed, allowed=session.is_changed_by(held))
        listed = self.ask(held, "GET", "/api/sessions?limit=200")
        if listed.is_success:
            readable = {session.id for session in self.model.sessions if session.is_read_by(held)}
            assert {item["id"] for item in listed.json()["items"]} <= readable
        told = self.ask(held, "GET", "/api/me")
        if told.is_success:
            assert set(told.json()["rights"]) <= held.rights

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def nobody_has_more_than_they_were_given(self) -> None:
        given = [held.rights for held in self.model.held]
        for look in range(LOOKS):
            found = self.stage.gateway.call(self.stage.rights, self.model.held)
            beyond = [
                (held, sorted(has - may))
                for held, has, may in zip(self.model.held, found, given, strict=True)
                if has - may
            ]
            if not beyond:
                break
            assert look < LOOKS - 1, f"has more than was given: {beyond}"
            time.sleep(PAUSE)
        # That a key has no less shows that the model is no mere upper bound of everything.
        for held, has, may in zip(self.model.held, found, given, strict=True):
            assert held.kind != "key" or has == may, f"has less than was given: {held}, {sorted(may - has)}"

    def teardown(self) -> None:
        """Look at everything once more, when nothing was wrong."""
        if hasattr(self, "model"):
            self.nobody_has_more_than_they_were_given()


MOVES: dict[str, Callable[[Escalation, Draw], None]] = {
    "make_key": lambda m, d: m.make_key(d.by, d.one if d.yes else None, d.scopes),
    "make_own_key": lambda m, d: m.make_key(d.by, None, d.scopes),
    "revoke_key": lambda m, d: m.revoke_key(d.by, d.one),
    "revoke_all_keys": lambda m, d: m.revoke_all_keys(d.by) if d.yes and d.sure else None,
    "make_ticket": lambda m, d: m.make_ticket(d.by),
    "use_ticket": lambda m, d: m.use_ticket(d.one, d.two),
    "present_something_else": lambda m, d: m.present_something_else(d.by),
    "change_role": lambda m, d: m.change_user(d.by, d.one, d.role, None),
    "change_user": lambda m, d: m.change_user(d.by, d.one, d.role if d.sure else None, d.yes),
    "demote_a_sender": lambda m, d: m.demote_a_sender(d.by, d.one, d.role, True if d.yes else None),
    "demote_a_maker": lambda m, d: m.demote_a_maker(d.by, d.one, d.role, True if d.yes else None),
    "enable": lambda m, d: m.change_user(d.by, d.one, None, disabled=False),
    "promote_oneself": lambda m, d: m.promote_oneself(d.by, d.role),
    "add_service": lambda m, d: m.add_service(d.by, d.role),
    "invite": lambda m, d: m.invite(d.by, d.one if d.yes else None, d.role),
    "take_invitation_back": lambda m, d: m.take_invitation_back(d.by, d.one),
    "accept_invitation": lambda m, d: m.accept_invitation(d.one),
    "log_in": lambda m, d: m.log_in(d.one, d.two),
    "refresh": lambda m, d: m.refresh(d.by),
    "log_out": lambda m, d: m.log_out(d.by, everywhere=d.yes),
    "switch": lambda m, d: m.switch(d.by, d.one),
    "found_team": lambda m, d: m.found_team(d.by),
    "put_member": lambda m, d: m.put_member(d.by, d.one, d.two if d.yes else None, d.role),
    "remove_member": lambda m, d: m.remove_member(d.by, d.one, d.two),
    "open_session": lambda m, d: m.open_session(d.by),
    "share": lambda m, d: m.share(d.by, d.one, d.two, "write" if d.yes else "read"),
    "unshare": lambda m, d: m.share(d.by, d.one, d.two, None),
    "look": lambda m, d: m.look(d.by),
}


def machine_of(made: Stage) -> type[Escalation]:
    """Return the machine on a stage."""
    return type("Escalation", (Escalation,), {"stage": made})


def replace_secret(held: Held, secret: str) -> Held:
    """Return a holder who presents something else."""
    return Held(held.kind, secret, held.id, held.owner)


def _relation(held: Held, session: Session) -> str:
    """Return by what a credential might touch a session."""
    if held.owner.id == session.owner:
        return "one's own"
    return "another's as an administrator" if held.owner.role == "admin" else "another's by a team"


def _pick(things: Sequence[T], number: int) -> T:
    return things[number % len(things)]
