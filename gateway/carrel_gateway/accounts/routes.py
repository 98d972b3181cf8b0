"""`/api/auth` and `/api/me`: who people are, how they log in and out, and what they are called."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response, status
from starlette.responses import RedirectResponse

from carrel_gateway.accounts import cookies
from carrel_gateway.accounts.invitations import InvitationService
from carrel_gateway.accounts.parts import Client
from carrel_gateway.accounts.profile import Profile, ProfileService
from carrel_gateway.accounts.schemas import (
    Accept,
    Accepted,
    AcceptedInvitation,
    AddressBody,
    ChangePassword,
    Invitation,
    InvitationList,
    LogIn,
    LoginList,
    LoginOut,
    Preferences,
    ProfileOut,
    ProfileUpdate,
    Refresh,
    Reset,
    SetUp,
    Switch,
    TenantOut,
    TokensOut,
)
from carrel_gateway.accounts.service import AccountService, LoginService, Tokens
from carrel_gateway.accounts.signing_in import ATTEMPT_SECONDS, SignInService
from carrel_gateway.dependencies import Caller, Cursor, GatewayOf, Seen, service_of
from carrel_gateway.errors import InvalidInput
from carrel_gateway.idempotency.routes import IdempotentRoute
from carrel_gateway.settings import Settings
from carrel_gateway.web.address import client_address
from carrel_gateway.web.conditional import tagged

MAX_AGENT: Final = 200

router = APIRouter(prefix="/api/auth", tags=["identity"])
"""Without idempotency keys: the answers hold tokens, which nobody keeps, and most callers are not known yet."""
invited = APIRouter(route_class=IdempotentRoute, prefix="/api/invitations", tags=["people"])
me = APIRouter(route_class=IdempotentRoute, prefix="/api/me", tags=["identity"])


async def _accounts(gateway: GatewayOf) -> AccountService:
    return AccountService(gateway.accounts)


async def _logins(gateway: GatewayOf) -> LoginService:
    return LoginService(gateway.accounts)


async def _invitations(gateway: GatewayOf) -> InvitationService:
    return InvitationService(gateway.accounts)


async def _signing_in(gateway: GatewayOf) -> SignInService:
    return SignInService(gateway.accounts)


Accounts = Annotated[AccountService, Depends(_accounts)]
Logins = Annotated[LoginService, Depends(_logins)]
Profiles = Annotated[ProfileService, service_of(ProfileService)]
Invitations = Annotated[InvitationService, Depends(_invitations)]
SigningIn = Annotated[SignInService, Depends(_signing_in)]
Parameter = Annotated[str | None, Query(max_length=4096)]


@router.post("/register", status_code=status.HTTP_202_ACCEPTED)
async def register(body: AddressBody, accounts: Accounts) -> Accepted:
    """Have a mail sent with which an account can be set up. Asking again sends it again."""
    await accounts.register(body.email)
    return Accepted()


@router.post("/verify", status_code=status.HTTP_201_CREATED)
async def verify(body: SetUp, accounts: Accounts, request: Request, response: Response) -> TokensOut:
    """Set the account up: the token of the mail shows whose address it is. Logs in."""
    client = client_of(request, cookie=body.cookie)
    return answer(
        await accounts.set_up(body.token, name=body.name, password=body.password, client=client), client, response
    )


@router.post("/login")
async def log_in(body: LogIn, accounts: Accounts, request: Request, response: Response) -> TokensOut:
    """Log in by password."""
    client = client_of(request, cookie=body.cookie)
    tokens = await accounts.log_in(body.email, body.password, client, tenant_id=body.tenant_id)
    return answer(tokens, client, response)


@router.post("/refresh")
async def refresh(logins: Logins, request: Request, response: Response, body: Refresh | None = None) -> TokensOut:
    """Exchange a refresh token, which is good once, for the next one and an access token."""
    in_body = body.refresh_token if body else None
    in_cookie = cookies.read(request)
    if in_body and in_cookie:
        raise InvalidInput("send the refresh token as a cookie or in the body, not both")
    presented = in_body or in_cookie
    if not presented:
        raise InvalidInput(
            "this needs a refresh token, in the body or as the cookie that a login gave", code="no_refresh_token"
        )
    client = client_of(request, cookie=in_body is None)
    return answer(await logins.refresh(presented, client), client, response)


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
async def log_out(caller: Caller, logins: Logins) -> Response:
    """End this login: its refresh token and its access tokens are good for nothing any more."""
    await logins.end_current(caller)
    return _forgetting()


@router.post("/logout-everywhere", status_code=status.HTTP_204_NO_CONTENT)
async def log_out_everywhere(caller: Caller, logins: Logins) -> Response:
    """End all logins of this person, in all their tenants. API keys stay."""
    await logins.end_all(caller)
    return _forgetting()


@router.get("/logins")
async def list_logins(caller: Caller, logins: Logins) -> LoginList:
    """List the logins of this person in this tenant, newest first."""
    items = [
        LoginOut(
            id=login.id,
            client=login.client,
            created_at=login.created_at,
            refreshed_at=login.refreshed_at,
            expires_at=login.expires_at,
            current=login.id == caller.credential_id,
        )
        for login in await logins.list(caller)
    ]
    return LoginList(items=items)


@router.delete("/logins/{login_id}", status_code=status.HTTP_204_NO_CONTENT)
async def end_login(login_id: UUID, caller: Caller, logins: Logins) -> Response:
    """End one login of this person."""
    await logins.end(caller, login_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/forgot", status_code=status.HTTP_202_ACCEPTED)
async def forgot(body: AddressBody, accounts: Accounts) -> Accepted:
    """Have a mail sent with which another password can be chosen."""
    await accounts.forgot(body.email)
    return Accepted()


@router.post("/reset", status_code=status.HTTP_204_NO_CONTENT)
async def reset(body: Reset, accounts: Accounts) -> Response:
    """Choose a password with the token of the mail. Ends all logins."""
    await accounts.reset(body.token, body.password)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/accept")
async def accept(body: Accept, invitations: Invitations) -> AcceptedInvitation:
    """Accept an invitation with the token of the mail: joins with the account of the address, or makes it."""
    tenant_id = await invitations.accept(body.token, name=body.name, password=body.password)
    return AcceptedInvitation(tenant_id=tenant_id)


@invited.post("", status_code=status.HTTP_202_ACCEPTED)
async def invite(body: Invitation, caller: Caller, invitations: Invitations) -> Accepted:
    """Invite somebody into this tenant by mail, for a week."""
    await invitations.invite(caller, body.email, body.role)
    return Accepted()


@invited.get("")
async def list_invitations(
    caller: Caller,
    invitations: Invitations,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> InvitationList:
    """List the invitations into this tenant that nobody has accepted yet, newest first."""
    return InvitationList.model_validate(await invitations.list(caller, limit=limit, cursor=cursor))


@invited.delete("/{invitation_id}", status_code=status.HTTP_204_NO_CONTENT)
async def take_invitation_back(invitation_id: UUID, caller: Caller, invitations: Invitations) -> Response:
    """Take an invitation back: the link in its mail does nothing any more."""
    await invitations.take_back(caller, invitation_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.put("/password", status_code=status.HTTP_204_NO_CONTENT)
async def change_password(body: ChangePassword, caller: Caller, accounts: Accounts, request: Request) -> Response:
    """Change the password. Ends all other logins."""
    await accounts.change_password(caller, current=body.current, new=body.new, client=client_of(request))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/switch")
async def switch(body: Switch, caller: Caller, accounts: Accounts, request: Request, response: Response) -> TokensOut:
    """Go on in another tenant of this person: ends this login and begins one there."""
    client = client_of(request, cookie=body.cookie)
    return answer(await accounts.switch(caller, body.tenant_id, client), client, response)


@router.get("/oidc/login", status_code=status.HTTP_303_SEE_OTHER, response_class=RedirectResponse)
async def begin_oidc(signing_in: SigningIn) -> Response:
    """Send a browser to the provider that people sign in with."""
    address, sealed = await signing_in.begin()
    response = RedirectResponse(address, status.HTTP_303_SEE_OTHER)
    cookies.put_attempt(response, sealed, seconds=ATTEMPT_SECONDS)
    return response


@router.get("/oidc/callback", status_code=status.HTTP_303_SEE_OTHER, response_class=RedirectResponse)
async def finish_oidc(
    signing_in: SigningIn,
    request: Request,
    state: Parameter = None,
    code: Parameter = None,
    iss: Parameter = None,
) -> Response:
    """Log in whoever comes back from the provider; the refresh token is a cookie."""
    client = client_of(request, cookie=True)
    tokens = await signing_in.finish(cookies.read_attempt(request), client, state=state, code=code, issuer=iss)
    response = RedirectResponse("/account", status.HTTP_303_SEE_OTHER)
    cookies.put(response, tokens.refresh, seconds=tokens.seconds)
    cookies.take_attempt_away(response)
    return response


@me.get("")
async def profile(profiles: Profiles, response: Response) -> ProfileOut:
    """Return who calls, and what they may."""
    return tagged(response, _profile(await profiles.get()))


@me.put("")
async def change_profile(body: ProfileUpdate, profiles: Profiles, seen: Seen, response: Response) -> ProfileOut:
    """Change the name."""
    return tagged(response, _profile(await profiles.rename(body.name, seen.on(_profile))))


@me.get("/preferences")
async def preferences(profiles: Profiles, response: Response) -> Preferences:
    """Return what programs in front of Carrel keep for this person."""
    return tagged(response, _preferences(await profiles.preferences()))


@me.put("/preferences")
async def change_preferences(body: Preferences, profiles: Profiles, seen: Seen, response: Response) -> Preferences:
    """Replace it."""
    changed = await profiles.set_preferences(body.preferences, seen.on(_preferences))
    return tagged(response, _preferences(changed))


def client_of(request: Request, *, cookie: bool = False) -> Client:
    """Return where a request comes from."""
    agent = request.headers.get("user-agent", "unknown")[:MAX_AGENT].replace("\0", "")
    settings: Settings = request.app.state.settings
    address = client_address(request.scope, trusted_proxies=settings.trusted_proxies)
    return Client("browser" if cookie else "program", agent, address)


def answer(tokens: Tokens, client: Client, response: Response) -> TokensOut:
    """Return what a login answers; a browser's refresh token goes into its cookie."""
    if client.kind == "browser":
        cookies.put(response, tokens.refresh, seconds=tokens.seconds)
    return TokensOut(
        access_token=tokens.access.token,
        expires_at=tokens.access.expires_at,
        refresh_token=None if client.kind == "browser" else tokens.refresh,
        login_id=tokens.login_id,
        tenant_id=tokens.tenant_id,
        user_id=tokens.user_id,
    )


def _forgetting() -> Response:
    response = Response(status_code=status.HTTP_204_NO_CONTENT)
    cookies.take_away(response)
    return response


def _preferences(kept: dict[str, Any]) -> Preferences:
    return Preferences(preferences=kept)


def _profile(found: Profile) -> ProfileOut:
    member = found.member
    return ProfileOut(
        user_id=member.user_id,
        name=member.name,
        email=member.email,
        kind=member.kind,
        role=member.role,
        rights=sorted(found.principal.rights),
        tenant_id=member.tenant_id,
        tenants=[TenantOut(id=one.tenant_id, name=one.tenant_name, role=one.role) for one in found.tenants],
        created_at=member.created_at,
    )
