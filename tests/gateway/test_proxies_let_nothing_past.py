"""nginx and Envoy as docs/examples has them, the gateway's own process, an application: nothing slips past.

The application trusts what it is told, so what the proxy lets through is what an attacker gets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support import gateways, tokens
from tests.support.gateways import ask, authorization, raw, token
from tests.support.ports import free_port

OURS = {"xauthtenant": [tokens.TENANT], "xauthsubject": ["dr.grey"], "xauthrole": ["EVALUATOR"]}


PROXIES = {"nginx": gateways.nginx, "envoy": gateways.envoy}


@dataclass(frozen=True)
class Running:
    """A gateway's process: where it listens, and what it has written."""

    socket: Path
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@dataclass(frozen=True)
class Chain:
    """A proxy before a gateway. ``good``: what the gateway answers it for a good token."""

    port: int
    gateway: Running
    good: int


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="wardkey-gateway-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def gateway(directory: Path) -> Iterator[Running]:
    at, log = directory / "gateway.sock", directory / "gateway.log"
    trusted = gateways.issuers(directory / "issuers.json")
    command = gateways.gateway_command("--issuers", str(trusted), "--socket", str(at), "--log-requests")
    with gateways.running(command, log, "ready at"):
        yield Running(at, log)


@pytest.fixture(scope="module", params=PROXIES)
def chain(directory: Path, gateway: Running, request: pytest.FixtureRequest) -> Iterator[Chain]:
    start, good = PROXIES[request.param], 204 if request.param == "nginx" else 200
    with (
        gateways.serve(gateways.echo()) as application,
        start(directory, gateway.socket, application) as port,
    ):
        yield Chain(port, gateway, good)


def test_the_application_is_told_who_asks(chain: Chain) -> None:
    signed = token()
    status, seen = ask(chain.port, authorization(signed), path=b"/patients?id=7")
    assert status == 200 and seen["path"] == "/patients"
    ours = gateways.auth_headers(seen)
    (request,) = ours.pop("xauthrequestid")
    assert ours == OURS and dict(seen["headers"])["authorization"] == f"Bearer {signed}"
    assert request == chain.gateway.requests()[-1]["request_id"]


FORGED = [
    *(
        b"X-Auth-Tenant: forged",
        b"x-auth-tenant: forged",
        b"X_AUTH_TENANT: forged",
        b"X-Auth_Role: SUPER_ADMIN",
    ),
    *(
        b"X-Auth-Role: SUPER_ADMIN",
        b"X.Auth.Role: SUPER_ADMIN",
        b"X-Auth-Email: forged",
        b"X-Auth-Tenant : x",
    ),
    *(
        b"X-Auth-Subject\t: forged",
        b"X--Auth--Role: forged",
        b"X-\xc2\xadAuth-Role: forged",
        b"X-AUTH-ROLE: A",
    ),
]


def test_no_header_of_the_client_is_x_auth(chain: Chain) -> None:
    for lines in (FORGED, FORGED[::-1], *([line] for line in FORGED)):
        status, seen = ask(chain.port, *lines, authorization(token()))
        ours = gateways.auth_headers(seen) if status == 200 else {"xauthrequestid": [""], **OURS}
        assert len(ours.pop("xauthrequestid")) == 1 and ours == OURS, (status, lines)
        assert status in (200, 400)
        status, seen = ask(chain.port, *lines, path=b"/health")
        assert status == 400 or gateways.auth_headers(seen) == {}
    folded = [b"Accept: a", b" X-Auth-Role: ADMIN", authorization(token())]
    status, seen = ask(chain.port, *folded)
    assert status == 400 or gateways.auth_headers(seen)["xauthrole"] == ["EVALUATOR"]


def test_no_option_of_connection_removes_what_is_injected(chain: Chain) -> None:
    for options in (b"X-Auth-Tenant, X-Auth-Role", b"Authorization", b"X-Auth-Role, Authorization"):
        status, seen = ask(chain.port, b"Connection: close, " + options, authorization(token()))
        assert status == 401 or gateways.auth_headers(seen).keys() == {*OURS, "xauthrequestid"}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"Authorization: Basic dXNlcjpwYXNz"],
        [b"Authorization: Bearer a.b.c"],
        [b"Authorization: Bearer {t}x"],
        [b"Authorization: Bearer {t}", b"Authorization: Bearer {t}"],
        [b"Authorization: Bearer a.b.c", b"Authorization: Bearer {t}"],
        [b"Authorization_: Bearer {t}"],
        [b"Authorization: Bearer {t}, Bearer {t}"],
        [b"X-Original-URI: /health"],
        [b"X-Rewrite-URL: /health", b"X-Original-Method: OPTIONS"],
        [b"Authorization: Bearer " + b"a" * 9000],
        [b"Authorization: Bearer " + b"a" * 40_000],
    ],
    ids=lambda lines: str(lines)[:60],
)
def test_nobody_passes_without_a_good_token(chain: Chain, lines: list[bytes]) -> None:
    signed = token().encode()
    status, _ = ask(chain.port, *(line.replace(b"{t}", signed) for line in lines))
    assert status in (400, 401)


def test_a_refusal_says_why_to_the_client(chain: Chain) -> None:
    answer = httpx.get(f"http://127.0.0.1:{chain.port}/patients")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="wardkey"')
    now = int(time.time())
    late = token(iat=now - 200, nbf=now - 200, exp=now - 100)
    answer = httpx.get(f"http://127.0.0.1:{chain.port}/", headers={"Authorization": f"Bearer {late}"})
    assert answer.status_code == 401 and "token has expired" in answer.headers["WWW-Authenticate"]


def test_no_path_leads_around_the_token(chain: Chain) -> None:
    """What nginx takes for the public path is the public path for the application, too."""
    for path in (
        *(
            b"/health/../patients",
            b"/health/..%2fpatients",
            b"//patients",
            b"/health%2f..%2fpatients",
            b"/_ward",
        ),
        *(
            b"/health;/../patients",
            b"/Health",
            b"/health/",
            b"/health%00",
            b"/%2e%2e/patients",
            b"/health%20",
        ),
        *(
            b"/patients%2f%2e%2e%2f%2e%2e%2fhealth",
            b"/patients/..%2fhealth",
            b"/patients/../health",
            b"/./health",
        ),
        *(b"/patients/%2e%2e/health", b"http://x/patients", b"/health#/../patients", b"/health?/../patients"),
    ):
        status, seen = ask(chain.port, path=path)
        assert status in (400, 401, 404) or (status == 200 and seen["path"] == "/health"), (
            path,
            status,
            seen,
        )


HIDING = [
    (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"", b"0\r\n\r\n"),
    (b"Transfer-Encoding: xchunked", b"Content-Length: 4", b"", b"0\r\n\r\n"),
    (b"Transfer-Encoding : chunked", b"Content-Length: 4", b"", b"0\r\n\r\n"),
    (b"Transfer_Encoding: chunked", b"Content-Length: {n}", b"", b""),
    (b"Content-Length: 0", b"Content-Length: {n}", b"", b""),
    (b"Content-Length: +0", b"", b""),
    (b"Content-Length: {n}", b"Connection: keep-alive", b"", b""),
    (b"Upgrade: websocket", b"Connection: Upgrade", b"", b""),
    (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"", b""),
]


@pytest.mark.parametrize("lines", HIDING, ids=lambda lines: str(lines[:2]))
def test_no_request_hides_in_another(chain: Chain, lines: tuple[bytes, ...]) -> None:
    """A server that reads lengths differently would answer the hidden request without a token."""
    hidden = b"GET /patients HTTP/1.1\r\nHost: x\r\nX-Auth-Role: SUPER_ADMIN\r\nConnection: close\r\n\r\n"
    outer = b"\r\n".join((b"POST /health HTTP/1.1", b"Host: x", *lines))
    wanted = outer.replace(b"{n}", str(len(hidden)).encode()) + hidden
    answer = raw(chain.port, wanted + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b'"path":"/patients"' not in answer and answer.startswith(b"HTTP/1.1 ")


def test_a_body_arrives_whole_and_the_gateway_gets_none(chain: Chain) -> None:
    body = b"x" * 100_000
    lines = [authorization(token()), b"Content-Length: 100000", b"Content-Type: text/plain"]
    head = b"\r\n".join([b"POST /notes HTTP/1.1", b"Host: x", b"Connection: close", *lines, b"", b""])
    assert (
        raw(chain.port, head + body).endswith(b'"}') and chain.gateway.requests()[-1]["status"] == chain.good
    )
    chunks = b"2\r\nab\r\n0\r\nX-Auth-Role: SUPER_ADMIN\r\n\r\n"
    head = head.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked")
    answer = raw(chain.port, head + chunks)
    assert b'"body":"ab"' in answer and b"SUPER_ADMIN" not in answer


def test_a_websocket_is_upgraded_with_a_token_only(chain: Chain) -> None:
    url = f"ws://127.0.0.1:{chain.port}/talk"
    forged = [("X-Auth-Role", "SUPER_ADMIN"), ("X.Auth.Role", "SUPER_ADMIN")]
    with connect(url, additional_headers=[*forged, ("Authorization", f"Bearer {token()}")]) as websocket:
        ours = gateways.auth_headers(json.loads(websocket.recv()))
        assert len(ours.pop("xauthrequestid")) == 1 and ours == OURS
        websocket.send("hello")
        assert websocket.recv() == "hello"
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=forged):
        pass
    assert refused.value.response.status_code == 401


def test_envoy_is_answered_200_and_401(gateway: Running) -> None:
    transport = httpx.HTTPTransport(uds=str(gateway.socket))
    with httpx.Client(transport=transport, base_url="http://gateway") as client:
        good = {"Authorization": f"Bearer {token(sub='Ü, 1')}"}
        answer = client.post("/envoy/patients/7?role=ADMIN", headers=good, content=b"body")
        assert answer.status_code == 200 and answer.content == b""
        assert answer.headers["X-Auth-Subject"] == "%C3%9C%2C%201"
        assert answer.headers["X-Auth-Tenant"] == tokens.TENANT
        refused = client.get("/envoy/patients/7", headers={"X-Auth-Role": "ADMIN"})
        assert refused.status_code == 401 and "X-Auth-Role" not in refused.headers
        for path, status in (
            ("/auth?role=ADMIN", 403),
            ("/auth?role=ADMIN&role=EVALUATOR", 204),
            ("/auth?role=OWNER", 403),
            ("/auth/", 404),
            ("/envoys", 404),
            ("/", 404),
            ("/health", 204),
        ):
            assert client.get(path, headers=good).status_code == status, path
        malformed = [("Authorization", "Bearer"), ("Authorization", "Bearer")]
        assert client.get("/auth", headers=malformed).status_code == 401


def test_the_log_has_verified_claims_and_constants_only(chain: Chain) -> None:
    bad, marked = token(aud="other"), token(sub="Subject Unheard")
    for signed in (bad, marked, "x" * 50):
        ask(chain.port, authorization(signed), path=b"/patients/ssn-123")
    said = chain.gateway.log.read_text()
    for part in (*bad.split("."), *marked.split("."), "Unheard", "ssn-123", "x" * 50):
        assert part not in said
    last = chain.gateway.requests()[-3:]
    assert [line["status"] for line in last] == [401, chain.good, 401]
    assert last[0]["reason"] == "token is not valid: claim aud is missing or not this audience alone"
    assert last[1].keys() == {"at", "status", "request_id", "tenant", "role"}


def test_the_socket_is_for_its_group(gateway: Running) -> None:
    mode = gateway.socket.stat().st_mode
    assert stat.S_ISSOCK(mode) and mode & 0o777 == 0o660
    command = gateways.gateway_command("--issuers", str(gateway.socket.with_name("issuers.json")))
    for more, said in (
        (["--socket", str(gateway.socket)], "a gateway already runs at"),
        ([], "give one of --socket"),
        (["--port", "1", "--socket", "/x"], "give one of --socket"),
    ):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and said in done.stderr
    done = subprocess.run(
        gateways.gateway_command("--issuers", "/nowhere", "--port", "0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "/nowhere" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_what_it_answers_is_answered(directory: Path, number: int) -> None:
    log, port = directory / f"stop-{number}.log", free_port()
    path = gateways.issuers(directory / f"stop-{number}.json")
    command = gateways.gateway_command("--issuers", str(path), "--port", str(port))
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        command += ["--run-as", "65534:65534"]
    with (
        gateways.running(command, log, "ready at") as process,
        socket.create_connection(("127.0.0.1", port)) as idle,
    ):
        assert ask(port, authorization(token()), path=b"/auth")[0] == 204
        if os.geteuid() == 0:
            assert "Uid:\t65534\t65534\t65534\t65534" in Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(number)
        assert process.wait(60) == 0 and idle.recv(1) == b""
    assert log.read_text().splitlines()[-1].endswith("gateway: stopped")
    assert token().split(".")[0] not in log.read_text()


@pytest.mark.parametrize("proxy", PROXIES)
def test_without_the_gateway_nobody_passes(directory: Path, proxy: str) -> None:
    with (
        gateways.serve(gateways.echo()) as application,
        tempfile.TemporaryDirectory(dir=directory) as own,
        PROXIES[proxy](Path(own), Path(own) / "nobody.sock", application) as port,
    ):
        assert ask(port, authorization(token()))[0] in (403, 500)
        assert ask(port, path=b"/health")[0] == 200
