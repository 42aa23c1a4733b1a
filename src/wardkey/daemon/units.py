"""The systemd units of a server of one's own: each service as its own OS user, which may do what it has to.

What is killed or ends is started again at once, for ever; ``states`` says how often that was.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from .files import write_atomically
from .service import ServiceError

__all__ = [
    "DSN",
    "GATEWAY",
    "GROUP",
    "INVALIDATOR",
    "KEEPER",
    "METRICS",
    "PUBLISHER",
    "SCRIBE",
    "SERVICES",
    "USERS",
    "ServiceError",
    "install",
    "states",
    "units",
    "users",
]

SERVICES: Final = ("keeper", "scribe", "publisher", "invalidator", "gateway", "metrics")
KEEPER: Final = "wardkey-keeper"
SCRIBE: Final = "ward-scribe"
PUBLISHER: Final = "wardkey-publisher"
INVALIDATOR: Final = "wardkey-invalidator"
GATEWAY: Final = "wardkey-gateway"
METRICS: Final = "wardkey-metrics"
"""OS users. The first two are not those of an embedded server, which may be on the same machine."""
GROUP: Final = "ward-socket"
"""Who may open the keeper's socket."""
PROXY_GROUP: Final = "www-data"
"""Who may open the gateway's socket: nginx."""
USERS: Final = "wardkey.conf"
"""The file of OS users among the units."""
_USERS_DIRECTORY: Final = Path("/etc/sysusers.d")
_UNITS_DIRECTORY: Final = Path("/etc/systemd/system")
BACKUPS: Final = "/var/backups/wardkey"
DSN: Final = "host=/var/run/postgresql dbname=wardkey"

_SOCKET: Final = "/run/wardkey/keeper.sock"
_GATEWAY_SOCKET: Final = "/run/wardkey-gateway/gateway.sock"
_CONFINED: Final = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
LimitCORE=0
UMask=0077
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
"""
_KEPT_RUNNING: Final = """\
Restart=always
RestartSec=100ms
RestartPreventExitStatus=2
ExecReload=/bin/kill -HUP $MAINPID
"""
_WATCHED: Final = "WatchdogSec=30s\n"
"""Killed and started again when the event loop does not turn for so long."""
_ANYWHERE: Final = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n"
_HERE: Final = "RestrictAddressFamilies=AF_UNIX\nPrivateNetwork=yes\nPrivateDevices=yes\n"


def units(what: str, *, dsn: str = DSN, kms: str | None = None, log_format: str = "text") -> dict[str, str]:
    """Return by file name the units of a service, or of the ``timers``.

    ``dsn``: the database, without a user for the services. ``kms``: the cell's, instead of what the keeper's
    kms.json says. ``log_format``: of the services' lines in the journal, text or json.
    """
    files: dict[str, str] = {
        "keeper": lambda: _keeper(kms),
        "scribe": lambda: _scribe(dsn),
        "publisher": lambda: _publisher(dsn),
        "invalidator": lambda: _invalidator(dsn),
        "gateway": lambda: _gateway(),
        "metrics": lambda: _metrics(dsn),
        "timers": lambda: _timers(dsn),
    }[what]()
    if log_format == "text" or what == "timers":
        return files
    return {
        name: re.sub(r"(?m)^(ExecStart=.*)$", rf"\1 --log-format {log_format}", text)
        for name, text in files.items()
    }


def users() -> str:
    """Return what systemd-sysusers reads (sysusers.d(5)): all OS users, as units name each other's."""
    lines = [f"g {GROUP} -"]
    for user in (KEEPER, SCRIBE, PUBLISHER, INVALIDATOR, GATEWAY, METRICS):
        lines.append(f'u {user} - "{user.replace("-", " ")}"')
    lines += [f"m {user} {GROUP}" for user in ("postgres", KEEPER, SCRIBE, METRICS)]
    return "\n".join(lines) + "\n"


def install(files: dict[str, str], directory: Path | None = None) -> list[str]:
    """Write what is not there as it is to be, make the users and have the units start at boot; return names.

    ``directory``: everything goes there, and systemd is not told. Raises OSError and ServiceError.
    """
    changed: list[str] = []
    for name, text in files.items():
        place = directory or (_USERS_DIRECTORY if name == USERS else _UNITS_DIRECTORY)
        if not (place / name).is_file() or (place / name).read_text() != text:
            place.mkdir(exist_ok=True)
            write_atomically(place / name, text.encode(), mode=0o644)
            changed.append(name)
    if directory is None:
        started = set(files) - {USERS} - {f"{name[:-6]}.service" for name in files if name.endswith(".timer")}
        _run(["systemd-sysusers", USERS])
        _run(["systemctl", "daemon-reload"])
        _run(["systemctl", "enable", *sorted(started)])
    return changed


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ServiceError(f"{command[0]} is not there: systemd does not run here") from None
    if done.returncode != 0:
        raise ServiceError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[:200]}")


def states() -> dict[str, dict[str, str]]:
    """Return by name what systemd says of the services that it knows, none where it does not run."""
    if shutil.which("systemctl") is None:
        return {}
    names = ("ActiveState", "MainPID", "NRestarts", "ActiveEnterTimestamp", "ExecMainStatus", "LoadState")
    states = {}
    for service in SERVICES:
        shown = subprocess.run(
            ["systemctl", "show", f"wardkey-{service}.service", f"--property={','.join(names)}"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        facts = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if facts.get("LoadState") == "loaded":
            states[service] = facts
    return states


def _keeper(kms: str | None) -> dict[str, str]:
    options = f"--directory /var/lib/{KEEPER} --socket {_SOCKET} --socket-group {GROUP}"
    options += f" --allow-uid postgres --scribe-uid {SCRIBE} --status-uid {METRICS}" + (
        f" --kms {_quoted(kms)}" if kms else ""
    )
    service = (
        f"Type=notify\nUser={KEEPER}\nSupplementaryGroups={GROUP}\n"
        f"ExecStart={_python('wardkey.keeper')} {options}\n"
        f"StateDirectory={KEEPER}\nStateDirectoryMode=0700\nRuntimeDirectory=wardkey\nRuntimeDirectoryPreserve=yes\n"
        f"{_KEPT_RUNNING}"
        f"{_WATCHED}# Backends wait for it.\nCPUWeight=1000\nNice=-10\n"
        f"{_CONFINED}"
        "# It gives its socket to the group.\nSystemCallFilter=@chown\n"
        f"{_ANYWHERE}"
    )
    return _file("keeper", "releases keys to their tenants' tokens", service)


def _scribe(dsn: str) -> dict[str, str]:
    options = f"--dsn {_quoted(f'{dsn} user=ward_scribe')} --keeper {_SOCKET}"
    service = (
        f"User={SCRIBE}\nSupplementaryGroups={GROUP}\nExecStart={_python('wardkey.scribe')} {options}\n"
        f"{_KEPT_RUNNING}{_CONFINED}{_HERE if 'host=/' in dsn else _ANYWHERE}"
    )
    return _file("scribe", "seals the audit log", service, after="postgresql.service wardkey-keeper.service")


def _publisher(dsn: str) -> dict[str, str]:
    options = f"--dsn {_quoted(f'{dsn} user=ward_publisher')} --config /var/lib/wardkey/publisher/kafka.json"
    service = (
        f"User={PUBLISHER}\nExecStart={_python('wardkey.publisher')} {options}\n"
        f"{_KEPT_RUNNING}{_CONFINED}{_ANYWHERE}PrivateDevices=yes\n"
    )
    return _file("publisher", "brings the audit log to Kafka", service, after="postgresql.service")


def _invalidator(dsn: str) -> dict[str, str]:
    options = (
        f"--dsn {_quoted(f'{dsn} user=ward_invalidator')} --config /var/lib/wardkey/invalidator/cache.json"
    )
    service = (
        f"User={INVALIDATOR}\nExecStart={_python('wardkey.cache')} {options}\n"
        f"{_KEPT_RUNNING}{_CONFINED}{_ANYWHERE}PrivateDevices=yes\n"
    )
    return _file("invalidator", "tells Redis which tables were written", service, after="postgresql.service")


def _gateway() -> dict[str, str]:
    options = f"--issuers /etc/wardkey/issuers.json --socket {_GATEWAY_SOCKET} --socket-group {PROXY_GROUP}"
    service = (
        f"Type=notify\nUser={GATEWAY}\nSupplementaryGroups={PROXY_GROUP}\n"
        f"ExecStart={_python('wardkey.gateway')} {options}\n"
        "RuntimeDirectory=wardkey-gateway\nRuntimeDirectoryMode=0755\n"
        f"{_WATCHED}{_KEPT_RUNNING}{_CONFINED}"
        "# It gives its socket to the group.\nSystemCallFilter=@chown\n"
        f"{_ANYWHERE}PrivateDevices=yes\n"
    )
    return _file("gateway", "verifies tokens for nginx", service, after="network-online.target")


def _metrics(dsn: str) -> dict[str, str]:
    options = f"--dsn {_quoted(f'{dsn} user=ward_metrics')} --keeper {_SOCKET}"
    service = (
        f"Type=notify\nUser={METRICS}\nSupplementaryGroups={GROUP}\n"
        f"ExecStart={_python('wardkey.metrics')} {options}\n"
        f"{_WATCHED}{_KEPT_RUNNING}{_CONFINED}{_ANYWHERE}PrivateDevices=yes\n"
    )
    return _file("metrics", "serves numbers to Prometheus", service, after="postgresql.service")


def _timers(dsn: str) -> dict[str, str]:
    files: dict[str, str] = {}
    program = Path(sys.executable).parent / "wardkey"
    for name, when, command, text in (
        ("keys", "daily", "keys rotate --due", "rotates and destroys the keys that are due"),
        ("prune", "daily", "audit prune --all", "drops months of the audit log that need not be kept"),
        ("doctor", "daily", "doctor", "checks every invariant"),
        ("backup", "daily", f"backup {BACKUPS}/$$(date -u +%%FT%%H%%M%%S)", "backs up database and keys"),
        (
            "drill",
            "weekly",
            f"restore $$(ls -d {BACKUPS}/2* | tail -n 1) --drill",
            "proves the newest backup",
        ),
    ):
        service = f'Type=oneshot\nEnvironment="WARDKEY_DSN={dsn} user=postgres"\n'
        if name in ("backup", "drill"):  # to whom it is sealed, and what opens it, is not for all to guess
            service += f"ExecCondition=/usr/bin/test -e /etc/wardkey/{name}.env\n"
            service += f"EnvironmentFile=-/etc/wardkey/{name}.env\nUMask=0077\n"
            service += f"ExecStart=/bin/sh -c 'exec {program} {command} $$OPTIONS'\n"
        else:
            service += f"ExecStart={program} {command}\n"
        files |= _file(name, text, service, is_wanted=False)
        files[f"wardkey-{name}.timer"] = (
            f"[Unit]\nDescription=wardkey {name}: {text}, {when}\n\n"
            f"[Timer]\nOnCalendar={when}\nRandomizedDelaySec=1h\nPersistent=true\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
    return files


def _file(name: str, text: str, service: str, *, after: str = "", is_wanted: bool = True) -> dict[str, str]:
    unit = f"[Unit]\nDescription=wardkey {name}: {text}\n" + (f"After={after}\n" if after else "")
    unit += "StartLimitIntervalSec=0\n" if is_wanted else ""
    end = "\n[Install]\nWantedBy=multi-user.target\n" if is_wanted else ""
    return {f"wardkey-{name}.service": f"{unit}\n[Service]\n{service}{end}"}


def _python(module: str) -> str:
    return f"{sys.executable} -I -m {module}"


def _quoted(text: str) -> str:
    """Return ``text`` as one argument of ExecStart."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'
