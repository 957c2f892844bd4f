"""The token that guards a cluster: whether one is wanted, where it is, that nobody else reads it, and who is told.

Whoever has the token runs code on every node and reads all its files. Without one, whoever reaches a port does.
"""

import ipaddress
import os
import secrets
from pathlib import Path


def get_auth_mode() -> str:
    """The user's choice of authentication; a token where nothing was chosen."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower()


def get_token_path() -> Path:
    """Where Ray keeps the token of this user."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def read_token() -> str:
    """The token as Ray would find it; empty where there is none, or authentication is off."""
    if get_auth_mode() != "token":
        return ""
    path = get_token_path()
    return os.environ.get("RAY_AUTH_TOKEN") or (path.read_text().strip() if path.is_file() else "")


def has_token() -> bool:
    """Whether there is a token, wanted or not."""
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or get_token_path().is_file()


def protect_token(*, make: bool) -> None:
    """Nobody else reads the token: Ray would write its file for all to read, so make it first, and mend an open one."""
    path = get_token_path()
    if make and not has_token():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    elif path.is_file() and path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def format_export_line(dashboard: str) -> str:
    """What Ray's own commands need in a shell: they use no token unless told, and fail with 401."""
    return f"export RAY_AUTH_MODE={get_auth_mode()} RAY_ADDRESS={dashboard}"


def require_protected_dashboard(host: str) -> None:
    """Stop before a dashboard that takes anybody's commands is opened to other machines.

    Args:
        host: the address that it is to listen on.

    Raises:
        ValueError: it is not this machine's own, and authentication is off.
    """
    if get_auth_mode() == "token" or is_loopback(host):
        return
    raise ValueError(
        f"a dashboard on {host} with RAY_AUTH_MODE={get_auth_mode()} lets whoever reaches it run code here; unset "
        "RAY_AUTH_MODE, or keep the dashboard on 127.0.0.1 and reach it through an SSH tunnel"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
