"""Bodies of the routes of MCP servers. No answer holds what a server is given, only what it is called."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from carrel_gateway.mcp_servers import rules
from carrel_gateway.mcp_servers.repository import Permission, Target, Transport
from carrel_gateway.mcp_servers.service import Change, NewServer, Server
from carrel_gateway.mcp_servers.templates import TEMPLATES, Template
from carrel_gateway.web.fields import ReplyBody, RequestBody, Text

Name = Annotated[str, Field(pattern=rules.NAME)]
Command = Annotated[list[Text], Field(min_length=1, max_length=rules.MAX_ARGUMENTS), AfterValidator(rules.command)]
Url = Annotated[str, AfterValidator(rules.url)]
Variables = Annotated[dict[str, SecretStr], Field(max_length=rules.MAX_SECRETS), AfterValidator(rules.variables)]
Headers = Annotated[dict[str, SecretStr], Field(max_length=rules.MAX_SECRETS), AfterValidator(rules.headers)]


class _Body(RequestBody):
    """What a server is, and what it is given."""

    command: Command | None = None
    """What starts it in the session's pod, as a list of arguments; no shell reads it."""
    url: Url | None = None
    """Where it is reached (Streamable HTTP)."""
    env: Variables | None = None
    """With a command: all that it finds in its environment. Encrypted, and never shown again."""
    headers: Headers | None = None
    """With an address: what it is sent with every request. Encrypted, and never shown again."""

    def _target(self) -> list[str] | str | None:
        return self.command if self.command is not None else self.url

    def _secrets(self) -> dict[str, str] | None:
        given = self.env if self.env is not None else self.headers
        return None if given is None else {name: value.get_secret_value() for name, value in given.items()}

    @model_validator(mode="after")
    def _one_transport(self) -> _Body:
        if (self.command is not None or self.env is not None) and (self.url is not None or self.headers is not None):
            raise ValueError("a server has a command with `env`, or an address with `headers`; leave the others out")
        return self


class ServerCreate(_Body):
    """A new server: of a template, or with a command or an address of one's own."""

    name: Name | None = None
    """What the session calls it; that of the template unless said otherwise."""
    template: str | None = None
    """A name of `GET /api/mcp/templates`, from which command or address come."""
    permission: Permission = "ask"
    """Whether its tools are used without a question, after one, or not at all."""
    enabled: bool = True

    @model_validator(mode="after")
    def _of_one_kind(self) -> ServerCreate:
        if sum(given is not None for given in (self.template, self.command, self.url)) != 1:
            raise ValueError("name one of `template`, `command` and `url`")
        if self.template is None:
            if self.name is None:
                raise ValueError("a server that is not of a template needs a `name`")
            return self
        template = TEMPLATES.get(self.template)
        if template is None:
            raise ValueError("there is no such template; GET /api/mcp/templates lists them")
        field, other = ("env", "headers") if isinstance(template.target, list) else ("headers", "env")
        if getattr(self, other) is not None:
            raise ValueError(f"this template takes `{field}`, and no `{other}`")
        given = {name.lower() for name, value in (self._secrets() or {}).items() if value}
        missing = [name for name in template.secrets if name.lower() not in given]
        if missing:
            raise ValueError(f"this template needs {', '.join(missing)} in `{field}`")
        return self

    def new(self) -> NewServer:
        """Return the server, with what its template says."""
        template = TEMPLATES.get(self.template or "")
        name, target = (template.name, template.target) if template else ("", self._target() or "")
        return NewServer(self.name or name, target, self._secrets() or {}, self.permission, self.enabled)


class ServerUpdate(_Body):
    """What is named is changed, what is left out stays; `env` and `headers` are replaced as a whole."""

    permission: Permission | None = None
    enabled: bool | None = None

    def change(self) -> Change:
        """Return what is to change."""
        has_command = self.command is not None or self.env is not None
        has_url = self.url is not None or self.headers is not None
        transport = "stdio" if has_command else "http" if has_url else None
        return Change(transport, self._target(), self._secrets(), self.permission, self.enabled)


class ServerOut(ReplyBody):
    """A server; not used yet, only kept."""

    name: str
    transport: Transport
    command: list[str] | None
    url: str | None
    env: dict[str, Literal[True]] | None
    """What its environment has, with a mark that it is set; the values are shown to nobody."""
    headers: dict[str, Literal[True]] | None
    """What it is sent, with a mark that it is set; the values are shown to nobody."""
    permission: Permission
    enabled: bool
    created_at: datetime
    updated_at: datetime

    @model_validator(mode="before")
    @classmethod
    def _by_transport(cls, value: Any) -> Any:
        if not isinstance(value, Server):
            return value
        names = {name: getattr(value, name) for name in cls.model_fields if hasattr(value, name)}
        return {**names, **_shown(value.target, dict.fromkeys(value.secrets, True))}


class ServerList(ReplyBody):
    """The servers of a session, by name."""

    items: list[ServerOut]


class TemplateOut(ReplyBody):
    """A well-known server."""

    name: str
    description: str
    transport: Transport
    command: list[str] | None
    url: str | None
    env: list[str] | None
    """Variables that it must be given."""
    headers: list[str] | None
    """Headers that it must be given."""

    @model_validator(mode="before")
    @classmethod
    def _by_transport(cls, value: Any) -> Any:
        if not isinstance(value, Template):
            return value
        return {"name": value.name, "description": value.description, **_shown(value.target, value.secrets)}


class TemplateList(ReplyBody):
    """All templates, by name; the same for everybody."""

    items: list[TemplateOut]


def _shown(target: Target, secrets: object) -> dict[str, object]:
    """Return target and secrets under the names that their transport has for them."""
    own = ("stdio", "command", "env") if isinstance(target, list) else ("http", "url", "headers")
    empty = dict.fromkeys(("command", "url", "env", "headers"))
    return {**empty, "transport": own[0], own[1]: target, own[2]: secrets}
