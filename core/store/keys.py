"""Keys and tokens of a Supabase project: what they say, and the token that names a role."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from urllib.parse import urlsplit

from core.errors import ConfigurationError


def sign_token(secret: str, role: str, *, seconds: int) -> str:
    """Sign a token (JWT, HS256) that names a role.

    Parameters
    ----------
    seconds : int
        How long it is valid, from now.
    """
    now = int(time.time())
    head = _base64url(b'{"alg":"HS256","typ":"JWT"}')
    body = _base64url(json.dumps({"role": role, "iat": now, "exp": now + seconds, "aud": "authenticated"}).encode())
    signature = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{_base64url(signature)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def check_key(url: str, key: str) -> None:
    """Check what an address and a key tell about themselves.

    Raises
    ------
    ConfigurationError
        If the address is none, or the key is of another project or another role.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"SUPABASE_URL must be the address of a project, such as https://abc.supabase.co, was {url!r}."
        )
    pieces = key.split(".")
    if len(pieces) != 3 or not parts.hostname.endswith(".supabase.co"):
        return
    try:
        claims = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
    except ValueError:
        raise ConfigurationError("SUPABASE_SERVICE_ROLE_KEY cannot be read: copy it from the project's API settings.") from None
    project = parts.hostname.removesuffix(".supabase.co")
    if claims.get("ref", project) != project:
        raise ConfigurationError(
            f"SUPABASE_SERVICE_ROLE_KEY is the key of the project {claims['ref']}, SUPABASE_URL names {project}: "
            "take both from one."
        )
    if claims.get("role", "service_role") != "service_role":
        raise ConfigurationError(
            f"SUPABASE_SERVICE_ROLE_KEY is the key of the role {claims['role']}: take the service-role key of the project."
        )
