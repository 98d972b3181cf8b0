"""Which problems each operation can answer with: one table, by method and path, of status and stable codes.

The OpenAPI document is completed from it (`openapi`), and the tests of the HTTP API check every answer that they get
against the result: what is not declared here is found there. Pure data; it imports nothing of the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Problems: TypeAlias = Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Problems that operations have in common."""

    methods: str
    """Pattern of methods."""
    path: str
    """Pattern of path templates."""
    problems: Problems = field(default_factory=dict[int, tuple[str, ...]])

    def fits(self, method: str, path: str) -> bool:
        """Return whether the rule is about this operation."""
        return bool(re.fullmatch(self.methods, method) and re.fullmatch(self.path, path))


_SESSION: Final = r"/api/sessions/\{session_id\}"
_KERNEL: Final = _SESSION + "/kernel"
_HOST: Final = (
    "executor_failed",
    "kernel_lost",
    "kernel_unreachable",
    "kernel_protocol",
    "kernel_refused",
    "kernel_unavailable",
    "deadline_exceeded",
    "no_space",
    "spool_full",
    "disk_full",
    "no_kernel",
)
_NO_STATE: Final = ("snapshot_damaged", "snapshot_unreadable", "snapshot_refused")
_HOST_STATE: Final = (
    "kernel_busy",
    "kernel_changed",
    "kernel_exists",
    "incarnation_changed",
    "other_kernel",
    "already_bound",
    "unbound",
    "sealed",
    "wrong_host",
)
"""What a kernel host says of its state comes through under its own code (docs/reference/kernel-host.md)."""

EVERYWHERE: Final[Problems] = {
    400: ("host_not_allowed", "invalid_address"),
    403: ("origin_not_allowed",),
    413: ("too_large", "too_many_values"),
    429: ("too_many", "rate_limited"),
    500: ("internal",),
    503: ("unavailable", "database_away"),
}
"""What any request can get, before or behind its route."""

WITH_A_KEY: Final[Problems] = {
    401: (
        "unauthenticated",
        "wrong_key",
        "wrong_token",
        "wrong_ticket",
        "token_expired",
        "revoked",
        "expired",
        "disabled",
    ),
    403: ("permission_denied", "no_rule"),
}
"""What an operation that wants a key adds."""

WITH_PARAMETERS: Final[Problems] = {422: ("validation_failed",)}
WITH_A_BODY: Final[Problems] = {400: ("invalid_json", "invalid_body"), 422: ("validation_failed",)}

IDEMPOTENT: Final[Problems] = {
    400: ("multipart_expected", "invalid_multipart", "cut_body", "too_many_parts", "invalid_name"),
    409: ("idempotency_in_progress", "idempotency_outcome_unknown", "idempotency_answer_not_kept"),
    412: ("precondition_failed",),
    422: ("idempotency_key_reused", "validation_failed"),
}
"""What an operation that takes `Idempotency-Key` adds; a multipart body under a key that is known is read for it.

The same operations compare `If-Match`, or refuse it."""

RULES: Final = (
    Rule(".*", _SESSION + "(/.*)?", {
        403: ("not_your_session",), 404: ("session_not_found",), 503: ("executor_failed",)}),
    Rule("POST|PUT", "/api/sessions|" + _SESSION + "|" + _SESSION + "/(config|reload)", {
        400: ("invalid_input",), 404: ("not_found",), 502: ("model_failed",)}),
    Rule("POST", "/api/sessions", {409: ("session_exists",)}),
    Rule("GET", "/api/sessions|" + _SESSION + "/(messages|events|files|artifacts)|/api/artifacts/.*/versions", {
        400: ("invalid_cursor",)}),
    Rule("POST", _SESSION + "/mcp", {409: ("mcp_server_exists",), 422: ("mcp_server_refused",)}),
    Rule(".*", _SESSION + r"/mcp/\{name\}", {404: ("mcp_server_not_found",)}),
    Rule("PUT", _SESSION + r"/mcp/\{name\}", {422: ("mcp_server_refused",)}),
    # chat
    Rule("POST", _SESSION + "/chat(/stream)?", {
        409: ("busy", "archived", "conflict"), 422: ("idempotency_key_reused",),
        429: ("too_many_queued",), 502: ("model_failed",)}),
    Rule("DELETE", _SESSION + r"/messages/\{message_id\}", {404: ("message_not_found",), 409: ("not_queued",)}),
    Rule("POST", _SESSION + "/chat/stream", {400: ("message_required", "invalid_event_id")}),
    Rule("GET", _SESSION + "/events", {400: ("invalid_event_id",)}),
    # kernel
    Rule(".*", _KERNEL + "(/.*)?|" + _SESSION + "/(resume|suspend|fork)", {
        404: ("kernel_not_found",), 409: ("archived", "no_kernel", "suspending", "conflict", *_HOST_STATE),
        429: ("queue_full", "too_many_kernels", "too_many_clients"), 503: (*_HOST, *_NO_STATE, "object_store_away")}),
    Rule("POST", _KERNEL + "/execute", {
        400: ("silent_with_id",), 409: ("execution_id_taken",), 422: ("idempotency_key_reused",),
        503: ("outcome_pending", "slow_reader")}),
    Rule("POST", _SESSION + "/suspend", {409: ("not_wanted", "resumed", "workspace_changed")}),
    Rule("POST", _SESSION + "/resume", {409: ("not_suspended",)}),
    Rule("POST", _SESSION + "/fork", {403: ("not_owner",), 409: ("fork_given_up", "workspace_changed")}),
    # files
    Rule("POST", _SESSION + "/files", {
        400: ("no_file", "invalid_name", "multipart_expected", "invalid_multipart", "cut_body", "too_many_parts"),
        409: ("archived", "upload_given_up", "object_exists"), 413: ("file_too_large",),
        503: (*_HOST, "object_store_away")}),
    Rule("POST", _SESSION + "/uploads", {
        400: ("invalid_name", "invalid_metadata", "length_needed"), 413: ("file_too_large",),
        429: ("too_many_uploads",)}),
    Rule("POST|HEAD|PATCH|DELETE", _SESSION + "/uploads.*", {412: ("tus_version",)}),
    Rule("POST|HEAD|PATCH", _SESSION + "/uploads.*", {
        409: ("archived", "upload_given_up", "object_exists"), 503: (*_HOST, "object_store_away")}),
    Rule(".*", _SESSION + r"/uploads/\{upload_id\}", {404: ("upload_not_found", "object_not_found")}),
    Rule("PATCH", _SESSION + r"/uploads/\{upload_id\}", {
        400: ("chunk_expected", "offset_needed", "parts_too_small"), 409: ("upload_offset",),
        413: ("file_too_large",)}),
    Rule("DELETE", _SESSION + "/files/.*", {409: ("archived",), 503: (*_HOST, "object_store_away")}),
    Rule(".*", _SESSION + r"/(files|artifacts)/.*|/api/artifacts/.*", {
        404: ("artifact_not_found", "object_not_found"), 503: ("object_store_away",)}),
    Rule("GET", r"/api/objects/\{token\}", {
        403: ("address_forged", "address_expired"), 404: ("object_not_found",), 503: ("object_store_away",)}),
    # the rest
    Rule("POST", _SESSION + "/notebook/sync", {400: ("invalid_notebook",), 409: ("archived",)}),
    Rule("GET", r"/api/models/\{name\}/validate", {404: ("not_found",)}),
    Rule(".*", "/api/users(/.*)?|/api/teams(/.*)?", {
        400: ("invalid_cursor", "invalid_input"), 404: ("user_not_found", "team_not_found", "member_not_found"),
        409: ("last_administrator", "team_exists", "conflict")}),
    Rule(".*", "/api/agents.*", {
        400: ("invalid_cursor", "invalid_input"), 404: ("agent_not_found", "share_not_found", "team_not_found"),
        409: ("agent_changed", "conflict"), 502: ("model_failed",)}),
    Rule("POST", "/api/sessions", {404: ("agent_not_found",)}),
    Rule(".*", "/api/provider-keys.*", {400: ("invalid_input",), 404: ("provider_key_not_found",)}),
    Rule(".*", "/api/keys.*", {
        400: ("invalid_cursor", "invalid_input"), 403: ("scopes_too_wide",), 404: ("key_not_found", "user_not_found"),
        409: ("conflict",), 429: ("too_many_keys",)}),
    Rule(".*", _SESSION + "/(teams|share).*", {
        400: ("invalid_input",), 404: ("team_not_found", "share_not_found", "user_not_found"), 409: ("conflict",)}),
    Rule("GET", "/api/shared/.*", {
        400: ("invalid_cursor",), 403: ("not_your_session",), 404: ("share_not_found", "session_not_found",
        "artifact_not_found", "object_not_found"), 503: ("object_store_away",)}),
    Rule("POST", "/api/keys", {400: ("expired",)}),
    Rule("GET|DELETE", "/api/invitations.*", {400: ("invalid_cursor",), 404: ("invitation_not_found",)}),
    Rule("POST", "/api/invitations", {429: ("too_many_attempts",)}),
    # accounts: whether a caller is known is what most of these are about
    Rule(".*", "/api/auth/.*", {
        400: ("invalid_input", "invalid_password", "link_not_valid", "name_and_password_needed", "no_refresh_token"),
        401: ("wrong_login", "login_ended", "oidc_refused", "unauthenticated", "disabled"),
        403: ("registration_closed", "wrong_password", "address_taken", "disabled", "permission_denied"),
        404: ("login_not_found", "tenant_not_found", "no_oidc_provider"),
        409: ("already_registered", "refresh_raced", "not_a_login", "no_password", "password_changed", "conflict"),
        429: ("too_many_attempts",), 503: ("oidc_provider_away",)}),
    Rule("PUT", _SESSION + r"/messages/\{message_id\}", {
        400: ("not_a_question", "invalid_input"), 404: ("message_not_found",),
        409: ("busy", "archived", "superseded", "no_question", "conflict"), 502: ("model_failed",)}),
    Rule("GET", "/api/search", {
        400: ("invalid_query", "invalid_cursor"), 403: ("not_your_session",), 404: ("session_not_found",)}),
    Rule("GET", "/api/artifacts/.*", {403: ("not_your_session",), 404: ("session_not_found",)}),
    Rule("GET", "/api/audit.*", {400: ("invalid_cursor", "invalid_input")}),
    Rule("GET", "/api/jobs", {400: ("invalid_cursor",)}),
    Rule(".*", r"/api/jobs/\{job_id\}.*", {404: ("job_not_found",)}),
    Rule("POST", "/api/jobs/.*/retry", {409: ("job_live",)}),
    Rule("POST", "/api/jobs/.*/cancel", {409: ("job_over",)}),
    Rule("GET", "/api(/me)?/usage", {400: ("invalid_input",)}),
    Rule("PUT", "/api/quotas", {
        400: ("invalid_input",), 404: ("team_not_found", "user_not_found", "quota_not_found")}),
    Rule("POST", "/api/sessions|" + _SESSION + "/(fork|kernel/execute)", {429: ("quota_reached",)}),
)  # fmt: skip

OFF_THE_TABLE: Final[Problems] = {
    400: ("malformed_request",),
    404: ("route_not_found",),
    405: ("method_not_allowed",),
}
"""Where there is no operation, such as for a method that HTTP does not know."""


def problems_of(method: str, path: str, *, secured: bool, parameters: bool, body: bool, keyed: bool) -> Problems:
    """Return the codes by status of one operation.

    Parameters
    ----------
    secured, parameters, body, keyed
        Whether it wants a key, has parameters, a JSON body, and takes an idempotency key.
    """
    found: dict[int, set[str]] = {}
    parts = [EVERYWHERE, *(rule.problems for rule in RULES if rule.fits(method, path))]
    parts += [part for part, wanted in ((WITH_A_KEY, secured), (WITH_PARAMETERS, parameters)) if wanted]
    parts += [part for part, wanted in ((WITH_A_BODY, body), (IDEMPOTENT, keyed)) if wanted]
    for part in parts:
        for status, codes in part.items():
            found.setdefault(status, set()).update(codes)
    return {status: tuple(sorted(codes)) for status, codes in sorted(found.items())}
