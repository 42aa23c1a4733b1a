"""``wardkey gateway``: verifies tokens for nginx and Envoy."""

from __future__ import annotations

import sys

import click

__all__ = ["gateway"]


@click.group()
def gateway() -> None:
    """Verify tokens before an application, for nginx and Envoy."""


@gateway.command("run")
@click.option("--issuers", metavar="FILE", required=True, help="issuers.json: whose tokens pass.")
@click.option("--socket", metavar="PATH", help="Where to listen, a unix socket; or --port.")
@click.option("--socket-group", metavar="GROUP", help="The group that may open the socket: nginx's.")
@click.option("--port", metavar="PORT", help="Where to listen, TCP.")
@click.option("--host", metavar="ADDRESS", help="Of --port (default 127.0.0.1).")
@click.option("--log-requests", is_flag=True, help="Print a line of JSON a request, without its token.")
@click.option("--run-as", metavar="UID:GID", help="Started as root: become this user.")
def run(log_requests: bool, **options: str | None) -> int:
    """Answer subrequests in the foreground until SIGTERM or Ctrl-C.

    nginx asks for /auth (auth_request), Envoy below /envoy (ext_authz, HTTP): 204 or 200 with X-Auth-* where
    the token is good, 401 or 403 where not.
    """
    from ..gateway.__main__ import SERVICE

    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    sys.stdout.flush()
    return SERVICE.main([*given, *(["--log-requests"] if log_requests else [])])
