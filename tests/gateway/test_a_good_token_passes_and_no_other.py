"""Middleware lets a request through with a good token, and tells the client nothing but what RFC 6750 has."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
import werkzeug.serving
from fastapi import Depends, FastAPI, WebSocket
from flask import Flask
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support import gateways, tokens
from tests.support.gateways import Jwks, ask, authorization, token
from wardkey.gateway import AsgiGateway, Identity, Trust, WsgiGateway
from wardkey.gateway import fastapi as fastapi_room
from wardkey.gateway import flask as flask_room
from wardkey.gateway import trust as trust_module

TRUST = Trust([tokens.document(keys=[tokens.jwk("EdDSA")], max_skew=0)])
BARE = 'Bearer realm="wardkey"'


def fastapi_application() -> Any:
    app = FastAPI()

    @app.get("/patients")
    def patients(known: Annotated[Identity, Depends(fastapi_room.identity)]) -> dict[str, Any]:
        return {"tenant": known.tenant_id, "subject": known.subject, "role": known.role, "token": known.token}

    @app.get("/health")
    def health() -> str:
        return "well"

    @app.get("/leaky")
    def leaky(known: Annotated[Identity, Depends(fastapi_room.identity)]) -> None: ...

    @app.get("/admin", dependencies=[Depends(fastapi_room.require("ADMIN"))])
    def admin() -> str:
        return "well"

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, known: Annotated[Identity, Depends(fastapi_room.identity)]) -> None:
        await websocket.accept()
        await websocket.send_text(known.subject)
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    app.add_middleware(AsgiGateway, trust=TRUST, public=["/health", "/leaky"])
    return app


def flask_application() -> Flask:
    app = Flask("clinic")
    flask_room.Gateway(TRUST, app, public=["/health", "/leaky"])

    @app.get("/patients")
    def patients() -> dict[str, Any]:
        known = flask_room.identity()
        return {"tenant": known.tenant_id, "subject": known.subject, "role": known.role, "token": known.token}

    @app.get("/health")
    def health() -> str:
        return '"well"'

    @app.get("/leaky")
    def leaky() -> str:
        return flask_room.identity().subject

    @app.get("/admin")
    @flask_room.require("ADMIN")
    def admin() -> str:
        return '"well"'

    return app


@pytest.fixture(scope="module", params=["fastapi", "flask"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "fastapi":
        with gateways.serve(fastapi_application()) as number:
            yield number
        return
    server = werkzeug.serving.make_server("127.0.0.1", 0, flask_application(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_application_knows_who_asks(port: int) -> None:
    signed = token(sub="Dr. Ängström")
    status, answer = ask(port, authorization(signed))
    assert status == 200 and answer == {
        "tenant": tokens.TENANT,
        "subject": "Dr. Ängström",
        "role": "EVALUATOR",
        "token": signed,
    }
    assert ask(port, b"authorization: bEARER   " + signed.encode())[0] == 200
    assert ask(port, path=b"/health") == (200, "well")


REFUSED = [
    ([], 401, "unauthorized"),
    ([b"Authorization: Basic dXNlcjpwYXNz"], 401, "unauthorized"),
    ([b"Authorization: "], 401, "unauthorized"),
    ([b"Authorization: Bearer"], 400, "invalid_request"),
    ([b"Authorization: Bearer "], 400, "invalid_request"),
    ([b"Authorization: Bearer a b"], 400, "invalid_request"),
    ([b"Authorization: Bearer " + "ü".encode()], 400, "invalid_request"),
    ([b"Authorization: Bearer {t}, Bearer {t}"], 400, "invalid_request"),
    ([b"Authorization: Bearer {t}", b"Authorization: Bearer {t}"], 400, "invalid_request"),
    ([b"Authorization: Bearer " + b"a" * 9000], 400, "invalid_request"),
    ([b"Authorization: Bearer " + b"a" * 8193], 401, "invalid_token"),
    ([b"Authorization: Bearer {t}x"], 401, "invalid_token"),
    ([b"Authorization: Bearer {t}="], 401, "invalid_token"),
    ([b"Authorization: Bearer a.b.c"], 401, "invalid_token"),
    ([b"Authorization_: Bearer {t}"], 401, "unauthorized"),
    ([b"X-Authorization: Bearer {t}"], 401, "unauthorized"),
    ([b"Proxy-Authorization: Bearer {t}"], 401, "unauthorized"),
    ([b"Cookie: Authorization=Bearer {t}"], 401, "unauthorized"),
]


@pytest.mark.parametrize(("lines", "status", "error"), REFUSED, ids=[str(case[0])[:60] for case in REFUSED])
def test_anything_else_is_refused_in_constant_words(
    port: int, lines: list[bytes], status: int, error: str
) -> None:
    signed = token().encode()
    assert ask(port, *(line.replace(b"{t}", signed) for line in lines)) == (status, {"error": error})


@pytest.mark.parametrize(
    ("changes", "challenge"),
    [
        (
            {"iat": -100, "nbf": -100, "exp": -5},
            f'{BARE}, error="invalid_token", error_description="token has expired"',
        ),
        ({"nbf": 300}, f'{BARE}, error="invalid_token"'),
        ({"iss": "https://other"}, f'{BARE}, error="invalid_token"'),
        ({"aud": "other"}, f'{BARE}, error="invalid_token"'),
        ({"tenant_id": "a\r\nX-Auth-Role: ADMIN"}, f'{BARE}, error="invalid_token"'),
        ({"sub": "a\r\nX-Auth-Role: ADMIN"}, f'{BARE}, error="invalid_token"'),
        ({"role": "OWNER"}, f'{BARE}, error="invalid_token"'),
    ],
    ids=str,
)
def test_the_challenge_is_that_of_rfc_6750(port: int, changes: dict[str, Any], challenge: str) -> None:
    """Numbers are seconds from now."""
    now = int(time.time())
    changes = {name: now + value if isinstance(value, int) else value for name, value in changes.items()}
    answer = httpx.get(
        f"http://127.0.0.1:{port}/patients", headers={"Authorization": f"Bearer {token(**changes)}"}
    )
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
    assert answer.headers["Cache-Control"] == "no-store" and len(answer.content) < 40


def test_a_role_may_be_wanted_and_a_public_path_has_nobody(port: int) -> None:
    assert ask(port, authorization(token(role="ADMIN")), path=b"/admin") == (200, "well")
    answer = httpx.get(
        f"http://127.0.0.1:{port}/admin", headers={"Authorization": f"Bearer {token(role='VIEWER')}"}
    )
    assert answer.status_code == 403 and "insufficient_scope" in answer.headers["WWW-Authenticate"]
    assert ask(port, path=b"/leaky")[0] == 401
    assert ask(port, authorization(token()), path=b"/leaky")[0] == 401
    for room in (fastapi_room, flask_room):
        with pytest.raises(ValueError, match="OWNER"):
            room.require("OWNER")


def test_without_the_middleware_there_is_no_identity() -> None:
    bare = FastAPI()

    @bare.get("/patients")
    def patients(known: Annotated[Identity, Depends(fastapi_room.identity)]) -> None: ...

    forged = [b"X-Auth-Tenant: x", authorization(token())]
    with gateways.serve(bare) as port:
        assert ask(port, *forged)[0] == 500
    app = Flask("bare")
    with app.test_request_context("/"), pytest.raises(RuntimeError, match="init_app"):
        flask_room.identity()


def test_methods_do_not_matter(port: int) -> None:
    for method in (b"OPTIONS", b"HEAD", b"POST", b"TRACE", b"PURGE"):
        assert ask(port, method=method)[0] == 401


@pytest.mark.parametrize("ws", ["websockets-sansio", "auto"])
def test_a_websocket_passes_as_a_request_does(ws: str) -> None:
    with gateways.serve(fastapi_application(), ws=ws) as port:
        url, good = f"ws://127.0.0.1:{port}/talk", {"Authorization": f"Bearer {token()}"}
        with connect(url, additional_headers=good) as socket:
            assert socket.recv() == "dr.grey"
            socket.send("hello")
            assert socket.recv() == "hello"
        for headers in ({}, {"Authorization": f"Bearer {token()}x"}, [*good.items(), *good.items()]):
            with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
                pass
            assert refused.value.response.status_code in (400, 401)
            assert b'"error"' in refused.value.response.body


def test_a_websocket_does_not_outlive_its_token() -> None:
    """Whether the application answers, only sends, or only receives."""
    app, heard = FastAPI(), list[str]()

    @app.websocket("/feed")
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)

    @app.websocket("/sink")
    async def sink(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            heard.append(text)

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    with gateways.serve(AsgiGateway(app, TRUST)) as port:
        now = int(time.time())
        brief = {"Authorization": f"Bearer {token(iat=now - 2, nbf=now - 2, exp=now + 5)}"}
        url = f"ws://127.0.0.1:{port}"
        with (
            connect(f"{url}/sink", additional_headers=brief) as taken,
            connect(f"{url}/talk", additional_headers=brief) as answered,
            connect(f"{url}/feed", additional_headers=brief) as given,
        ):
            answered.send("in time")
            assert answered.recv() == "in time"
            with pytest.raises(ConnectionClosed) as fed:
                while True:
                    assert given.recv() == "tick"
            assert time.time() >= now + 5
            for socket in (taken, answered):
                socket.send("late")
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv()
                assert closed.value.rcvd.code == fed.value.rcvd.code == 1008
            assert not heard


def test_a_new_key_passes_with_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "RETRY_SECONDS", 0.0)
    provider = Jwks(tokens.jwk("EdDSA"))
    with provider.served() as url:
        trust = Trust([tokens.document(keys=tokens.DROP, jwks=url)])
        provider.body = json.dumps({"keys": [tokens.jwk("ES256")]}).encode()
        with gateways.serve(AsgiGateway(gateways.echo(), trust)) as port:
            assert ask(port, authorization(token("ES256")))[0] == 200
        called: list[str] = []
        environ = {"PATH_INFO": "/", "HTTP_AUTHORIZATION": f"Bearer {token('EdDSA')}"}
        provider.body = json.dumps({"keys": [tokens.jwk("EdDSA")]}).encode()
        list(WsgiGateway(lambda *_: [b""], trust)(environ, lambda status, _: called.append(status)))
        assert not called
        provider.status = 500
        monkeypatch.setattr(trust_module, "STALE_SECONDS", -1.0)
        with gateways.serve(AsgiGateway(gateways.echo(), trust)) as port:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/", headers={"Authorization": f"Bearer {token('ES256')}"}
            )
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_nothing_but_http_and_websocket_passes() -> None:
    reached: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def nothing(*_: Any) -> Any: ...

    gateway = AsgiGateway(app, TRUST)
    asyncio.run(gateway({"type": "lifespan"}, nothing, nothing))
    with pytest.raises(ValueError, match="nothing else"):
        asyncio.run(gateway({"type": "webtransport", "path": "/", "headers": []}, nothing, nothing))
    assert reached == ["lifespan"]


def test_no_token_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = token(), token(aud="other")
    with gateways.serve(fastapi_application(), log_level="trace") as port:
        caplog.clear()
        for signed in (good, bad, "x" + good):
            ask(port, authorization(signed))
    said = caplog.text
    for signed in (good, bad):
        for part in signed.split("."):
            assert part not in said
