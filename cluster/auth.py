"""The token that protects a Ray cluster: whether one is required, where it is stored, and its file permissions.

Whoever has the token runs code on every node and reads all its files. Without a token, everybody who reaches a port
does.
"""

import ipaddress
import os
import secrets
from pathlib import Path


def get_auth_mode() -> str:
    """Return the user's choice of authentication; "token" where nothing was chosen."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower()


def get_token_path() -> Path:
    """Return the path at which Ray stores this user's token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def read_token() -> str:
    """Return the token as Ray would find it; empty where there is none, or authentication is off."""
    if get_auth_mode() != "token":
        return ""
    path = get_token_path()
    return os.environ.get("RAY_AUTH_TOKEN") or (path.read_text().strip() if path.is_file() else "")


def has_token() -> bool:
    """Return whether a token exists, required or not."""
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or get_token_path().is_file()


def protect_token(*, make: bool) -> None:
    """Let nobody else read the token file: create it before Ray does (readable by all), or restrict an existing one."""
    path = get_token_path()
    # mode and O_EXCL in one call: others can read the file at no moment, and nobody else's new token is overwritten
    if make and not has_token():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    elif path.is_file() and path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def format_export_line(dashboard: str) -> str:
    """Return the shell line that Ray's own commands need; without it they send no token and fail with 401."""
    return f"export RAY_AUTH_MODE={get_auth_mode()} RAY_ADDRESS={dashboard}"


def require_protected_dashboard(host: str) -> None:
    """Raise ValueError before a dashboard without authentication listens on an address that other machines reach."""
    if get_auth_mode() == "token" or is_loopback(host):
        return
    raise ValueError(
        f"a dashboard on {host} with RAY_AUTH_MODE={get_auth_mode()} lets whoever reaches it run code here; unset "
        "RAY_AUTH_MODE, or keep the dashboard on 127.0.0.1 and reach it through an SSH tunnel"
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
