"""`contextworker token`: create tokens and secrets, and verify tokens."""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import COMMANDS, Commands
from .connection import USAGE, add_json
from .output import complain, did_you_mean, fail, print_json, say

if TYPE_CHECKING:
    from contextunity.core.tokens import ContextToken, VerifiedToken

    from ..settings import Settings

# Each command imports what it needs, so that --help and usage errors are fast.

__all__ = ["PERMISSIONS", "add_parser", "run"]

_DESCRIPTION = """\
Creates tokens and secrets, and verifies tokens.

  contextworker token secret > token.secret; chmod 600 token.secret
  contextworker token mint --project my_project --permission worker:execute --permission worker:read \\
      --tenant my_project --ttl 8h --secret-file token.secret
  echo "$TOKEN" | contextworker token verify -

Without a file of keys, the keys of the settings are used (CONTEXTWORKER_TOKEN_SECRET, …_TOKEN_SECRET_FILE,
…_TOKEN_KEYS_FILE). Exit codes: 0 success, 1 invalid token, 2 wrong usage or configuration.
"""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FOREVER = "never"
PERMISSIONS = ("worker:execute", "worker:read", "worker:schedule")
"""All permissions that the service's methods need. Other families of permissions are for other services."""


def add_parser(commands: Commands) -> None:
    """Add the command `token`."""
    token = commands.add_parser(
        "token",
        help=COMMANDS["token"][1],
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions: Commands = token.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    _add_mint(actions.add_parser("mint", help="create a token and print it"))
    verify = actions.add_parser("verify", help="print the content of a token or JWT, or why it is invalid")
    verify.add_argument(
        "token", metavar="TOKEN", help="the token; - reads it from the standard input, where no process list shows it"
    )
    secret = actions.add_parser("secret", help="print a new secret for HMAC keys")
    for action in (verify, secret):
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0 for success, 1 for an invalid token, 2 for wrong usage or configuration."""
    from contextunity.core.tokens import TokenKeyError

    from ..errors import WorkerError

    try:
        match arguments.action:
            case "mint":
                return _mint(arguments)
            case "verify":
                return _verify(arguments)
            case _:
                return _secret(arguments)
    except TokenKeyError as error:
        return fail(arguments, USAGE, str(error), code="USAGE")
    except WorkerError as error:
        return fail(arguments, error.exit_code, str(error), code="CONFIGURATION")


def _add_mint(mint: argparse.ArgumentParser) -> None:
    mint.add_argument(
        "--project", required=True, metavar="PROJECT", help="project that issues the token; the token is bound to it"
    )
    mint.add_argument(
        "--permission",
        action="append",
        type=_permission,
        default=[],
        metavar="NAME",
        help=f"permission: {', '.join(PERMISSIONS)}; repeatable",
    )
    mint.add_argument("--tenant", action="append", default=[], metavar="NAME", help="tenant of the token; repeatable")
    mint.add_argument(
        "--ttl",
        type=_duration,
        default=3600,
        metavar="TIME",
        help=f"time to live, as 90s, 15m, 1h, 7d or {_FOREVER} (1h)",
    )
    mint.add_argument(
        "--not-before",
        type=_moment,
        metavar="TIME",
        help="start of its validity: 2026-01-31T08:00:00Z, or a delay as 15m, 1h, 7d (now)",
    )
    mint.add_argument(
        "--platform",
        action="store_true",
        help="permit the schedules of all projects of its tenants, not only those of PROJECT",
    )
    mint.add_argument("--user-id", metavar="NAME", help="person that uses it")
    mint.add_argument("--agent-id", metavar="NAME", help="program that uses it")
    mint.add_argument("--token-id", metavar="NAME", help="id of the token in logs (a new UUID)")
    mint.add_argument("--kid", metavar="KID", help="name of the key (PROJECT:hmac-001, or PROJECT:ed25519-001)")
    keys = mint.add_mutually_exclusive_group()
    keys.add_argument("--secret-file", type=Path, metavar="FILE", help="file with the secret to sign with")
    keys.add_argument(
        "--private-key-file", type=Path, metavar="FILE", help="PEM file of the Ed25519 private key to sign with"
    )
    add_json(mint)


def _permission(text: str) -> str:
    """Return a permission; one of the worker's family must be known."""
    name = text.lower()
    if name in PERMISSIONS or not name.startswith("worker:"):
        # Other services may have upper case; ours are lower case.
        return name if name in PERMISSIONS else text
    raise argparse.ArgumentTypeError(
        f"{text!r} is no permission of the worker, which has {', '.join(PERMISSIONS)}{did_you_mean(name, PERMISSIONS)}"
    )


def _duration(text: str) -> int | None:
    """Return the seconds of a duration such as 90s, 15m, 1h or 7d; None for `never`."""
    if text == _FOREVER:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write 90s, 15m, 1h, 7d or {_FOREVER}")
    return int(found[1]) * _UNITS[found[2]]


def _moment(text: str) -> int:
    """Return a time as seconds since 1970; the text is a time with its UTC offset, or a delay from now."""
    if re.fullmatch(r"[1-9][0-9]{0,8}[smhd]", text):
        after = _duration(text)
        assert after is not None
        return int(time.time()) + after
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write 2026-01-31T08:00:00Z, with the offset from UTC, or 15m, 1h, 7d from now on"
        )
    return int(moment.timestamp())


def _mint(arguments: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from contextunity.core.tokens import ContextToken

    from ..setting_errors import describe_violations

    now = int(time.time())
    begins = now if arguments.not_before is None else arguments.not_before
    kind = "platform" if arguments.platform else "project"
    try:
        token = ContextToken.model_validate(
            {
                "token_id": arguments.token_id or str(uuid.uuid4()),
                "permissions": arguments.permission,
                "provenance": ["contextworker:mint"],
                "allowed_tenants": arguments.tenant,
                "exp_unix": None if arguments.ttl is None else begins + arguments.ttl,
                "nbf": arguments.not_before,
                "iat": now,
                "user_id": arguments.user_id,
                "agent_id": arguments.agent_id,
                "project_binding": {"kind": kind, "project_id": arguments.project},
            }
        )
    except ValidationError as error:
        return fail(arguments, USAGE, "\n".join(describe_violations(error, ContextToken, {})), code="USAGE")
    kid = arguments.kid or f"{arguments.project}:{'ed25519' if arguments.private_key_file else 'hmac'}-001"
    text = _sign(token, kid, arguments)
    for what, given in {"tenant": arguments.tenant, "permission": arguments.permission}.items():
        if not given:
            complain(f"note: the token has no --{what}, and so opens nothing that asks for one")
    for permission in arguments.permission:
        meant = did_you_mean(permission.lower(), PERMISSIONS, least=0.85)
        if permission not in PERMISSIONS and meant:
            complain(f"note: nothing of the worker asks for the permission {permission!r}{meant}")
    if arguments.json:
        print_json({"token": text, "kid": kid, "payload": _payload(token)})
    else:
        say(text)
    return 0


def _sign(token: ContextToken, kid: str, arguments: argparse.Namespace) -> str:
    from contextunity.core.tokens import ed25519_private_key, mint

    from ..settings import load_settings
    from ..token_keys import load_keyring, read_secret_file

    if arguments.private_key_file is not None:
        return mint(token, kid=kid, private_key=ed25519_private_key(read_secret_file(arguments.private_key_file)))
    if arguments.secret_file is not None:
        return mint(token, kid=kid, secret=read_secret_file(arguments.secret_file))
    return load_keyring(load_settings()).mint(token, kid=kid)


def _verify(arguments: argparse.Namespace) -> int:
    from contextunity.core.tokens import MAX_TOKEN_LENGTH, TokenError

    from ..settings import load_settings
    from ..token_keys import is_jwt, load_keyring

    settings = load_settings()
    keyring = load_keyring(settings)
    # A little more than the maximum, for the newline; the rest of other input is not read.
    piped = arguments.token == "-"  # noqa: S105 - a sign for the standard input
    text = sys.stdin.buffer.read(MAX_TOKEN_LENGTH + 100).decode("latin-1").strip() if piped else arguments.token
    issuer = settings.jwt_issuer if is_jwt(text) else ""
    try:
        verified = asyncio.run(_verify_jwt(settings, text)) if issuer else keyring.verify(text)
    except TokenError as error:
        keys = "" if issuer else f"; keys: {', '.join(keyring.kids)}"
        return _rejected(arguments, error.reason, str(error), error.kid, keys)
    if settings.has_revocations and (text := asyncio.run(_revoked(settings, verified.token))):
        return _rejected(arguments, "revoked", text, verified.kid)
    if arguments.json:
        payload = _payload(verified.token)
        print_json({"good": True, "kid": verified.kid, "project_id": verified.project_id, "payload": payload})
    else:
        say(_for_people(verified, issuer))
    return 0


async def _verify_jwt(settings: Settings, text: str) -> VerifiedToken:
    from ..auth import open_jwts

    async with open_jwts(settings) as verifier:
        return verifier.verify(text)


async def _revoked(settings: Settings, token: ContextToken) -> str:
    """Return that a token is revoked; empty if it is not."""
    from ..grpc_errors import ServiceError
    from ..revocations import open_revocations

    async with open_revocations(settings) as revocations:
        assert revocations is not None
        try:
            await revocations.check(token.token_id, token.revocation_id or "")
        except ServiceError as error:
            return error.message
    return ""


def _rejected(arguments: argparse.Namespace, reason: str, text: str, kid: str, keys: str = "") -> int:
    if arguments.json:
        print_json({"good": False, "reason": reason, "kid": kid, "error": text})
    else:
        complain(f"{reason}: {text}" + (f" (kid {kid}{keys})" if kid else ""))
    return 1


def _secret(arguments: argparse.Namespace) -> int:
    secret = secrets.token_urlsafe(48)
    if arguments.json:
        print_json({"secret": secret})
    else:
        say(secret)
    return 0


def _for_people(verified: VerifiedToken, issuer: str) -> str:
    token = verified.token
    unbound = "none" if issuer else "none: a key of all projects, and bound to none"
    bound = token.project_binding is not None and token.project_binding.kind == "project"
    rows = {
        "good": f"signed with {verified.kid or 'a key without a kid'}" + (f", a JWT of {issuer}" if issuer else ""),
        "project": verified.project_id or unbound,
        "schedules": "of this project alone" if bound else "of all projects of its tenants",
        "token_id": token.token_id,
        "user_id": token.user_id,
        "agent_id": token.agent_id,
        "permissions": ", ".join(token.permissions) or "none",
        "tenants": ", ".join(token.allowed_tenants or ()) or "none",
        "provenance": " → ".join(token.provenance),
        "begins": "" if token.nbf is None else _when(token.nbf),
        "ends": "never" if token.exp_unix is None else _when(token.exp_unix),
    }
    return "\n".join(f"{name:<11} {value}" for name, value in rows.items() if value)


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s after 1970"


def _payload(token: ContextToken) -> dict[str, Any]:
    return token.model_dump(mode="json", exclude_none=True)
