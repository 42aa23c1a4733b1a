"""Cloud KMS on loopback: google.cloud.kms.v1.KeyManagementService over gRPC and REST, both with TLS."""

from __future__ import annotations

import json
import re
import ssl
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import grpc
from google.cloud.kms_v1 import types
from google.iam.v1 import iam_policy_pb2
from google.protobuf import json_format

from tests.support.certificates import make_certificate
from tests.support.cloud_kms import ADMIN, CloudKms, Refusal
from tests.support.ports import free_port

PARENT = "projects/test/locations/europe-west3"

_REQUESTS: dict[str, Any] = {
    name: getattr(types, f"{name}Request")
    for name in (
        "CreateCryptoKey",
        "CreateCryptoKeyVersion",
        "CreateKeyRing",
        "Decrypt",
        "DestroyCryptoKeyVersion",
        "Encrypt",
        "GetCryptoKey",
        "GetCryptoKeyVersion",
        "ListCryptoKeyVersions",
        "UpdateCryptoKey",
        "UpdateCryptoKeyPrimaryVersion",
        "UpdateCryptoKeyVersion",
    )
}
_IAM_REQUESTS: dict[str, Any] = {
    name: getattr(iam_policy_pb2, f"{name}Request") for name in ("GetIamPolicy", "SetIamPolicy")
}
_NAME, _KEY = r"(projects/[^:]+)", r"(projects/[^:]+/cryptoKeys/[^:/]+)"
_VERSION = rf"{_KEY[:-1]}/cryptoKeyVersions/[^:/]+)"
# verb, path, method, the member that the path is, the member that the body is ("" all others)
_ROUTES = (
    ("POST", rf"/v1/{_NAME}:encrypt", "Encrypt", "name", ""),
    ("POST", rf"/v1/{_NAME}:decrypt", "Decrypt", "name", ""),
    ("POST", rf"/v1/{_NAME}/keyRings", "CreateKeyRing", "parent", "keyRing"),
    ("POST", rf"/v1/{_NAME}/cryptoKeys", "CreateCryptoKey", "parent", "cryptoKey"),
    ("GET", rf"/v1/{_KEY}", "GetCryptoKey", "name", ""),
    ("PATCH", rf"/v1/{_KEY}", "UpdateCryptoKey", "cryptoKey.name", "cryptoKey"),
    ("POST", rf"/v1/{_KEY}:updatePrimaryVersion", "UpdateCryptoKeyPrimaryVersion", "name", ""),
    ("GET", rf"/v1/{_KEY}/cryptoKeyVersions", "ListCryptoKeyVersions", "parent", ""),
    ("POST", rf"/v1/{_KEY}/cryptoKeyVersions", "CreateCryptoKeyVersion", "parent", "cryptoKeyVersion"),
    ("GET", rf"/v1/{_VERSION}", "GetCryptoKeyVersion", "name", ""),
    ("PATCH", rf"/v1/{_VERSION}", "UpdateCryptoKeyVersion", "cryptoKeyVersion.name", "cryptoKeyVersion"),
    ("POST", rf"/v1/{_VERSION}:destroy", "DestroyCryptoKeyVersion", "name", ""),
    ("GET", rf"/v1/{_KEY}:getIamPolicy", "GetIamPolicy", "resource", ""),
    ("POST", rf"/v1/{_KEY}:setIamPolicy", "SetIamPolicy", "resource", ""),
)
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class CloudKmsServer:
    """Serves one CloudKms, ``kms``, to two service accounts. ``certificate`` is what clients must trust."""

    def __init__(self) -> None:
        self.kms = CloudKms()
        self.keeper = self.kms.make_account("wardkey-keeper")
        self.orchestrator = self.kms.make_account("wardkey-orchestrator", ADMIN)
        self.certificate, self._key = make_certificate()
        self.grpc_port = free_port()
        self._grpc: grpc.Server
        self.start_grpc()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _rest_handler(self.kms))
        self._http.socket = self._context().wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def uri(self, transport: str) -> str:
        port = self.grpc_port if transport == "grpc" else self._http.server_port
        return f"gcpkms://{PARENT}?transport={transport}&endpoint=localhost:{port}"

    def start_grpc(self) -> None:
        self._grpc = grpc.server(ThreadPoolExecutor(16))
        self._grpc.add_generic_rpc_handlers((_GrpcHandler(self.kms),))
        credentials = grpc.ssl_server_credentials([(self._key, self.certificate)])
        self._grpc.add_secure_port(f"127.0.0.1:{self.grpc_port}", credentials)
        self._grpc.start()

    def stop_grpc(self) -> None:
        self._grpc.stop(None).wait()

    def stop(self) -> None:
        self.stop_grpc()
        self._http.shutdown()
        self._http.server_close()

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.certificate + self._key)
            file.flush()
            context.load_cert_chain(file.name)
        return context


class _GrpcHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, kms: CloudKms) -> None:
        self._kms = kms

    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        service, _, method = details.method.strip("/").partition("/")
        if service == "google.cloud.kms.v1.KeyManagementService" and method in _REQUESTS:
            parse = _REQUESTS[method].deserialize
        elif service == "google.iam.v1.IAMPolicy" and method in _IAM_REQUESTS:
            parse = _IAM_REQUESTS[method].FromString
        else:
            return None

        def behave(request: Any, context: grpc.ServicerContext) -> Any:
            authorization = dict(context.invocation_metadata()).get("authorization")
            try:
                return self._kms.answer(method, request, authorization)
            except Refusal as refusal:
                context.abort(refusal.code, refusal.message)

        return grpc.unary_unary_rpc_method_handler(
            behave,
            request_deserializer=parse,
            response_serializer=lambda message: _raw(message).SerializeToString(),
        )


def _rest_handler(kms: CloudKms) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_PATCH(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                method, request = _rest_request(self.command, self.path, body)
                message = kms.answer(method, request, self.headers.get("Authorization"))
                status, content = 200, json_format.MessageToJson(_raw(message))
            except Refusal as refusal:
                status = _HTTP_STATUS.get(refusal.code, 500)
                error = {"code": status, "message": refusal.message, "status": refusal.code.name}
                content = json.dumps({"error": error})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


def _rest_request(verb: str, target: str, body: bytes) -> tuple[str, Any]:
    url = urlsplit(target)
    for route_verb, pattern, method, path_member, body_member in _ROUTES:
        match = re.fullmatch(pattern, url.path)
        if verb != route_verb or not match:
            continue
        members: dict[str, Any] = dict(parse_qsl(url.query))
        members = {key: value for key, value in members.items() if "$" not in key and "." not in key}
        content = json.loads(body or "{}")
        members |= {body_member: content} if body_member else content
        outer, _, inner = path_member.rpartition(".")
        (members[outer] if outer else members)[inner] = match[1]
        request = (_REQUESTS | _IAM_REQUESTS)[method]()
        json_format.ParseDict(members, _raw(request))
        return method, request
    raise Refusal(grpc.StatusCode.UNIMPLEMENTED, f"{verb} {url.path}")


def _raw(message: Any) -> Any:
    """Return the protocol buffer in one of proto-plus's messages, or itself if it is none of them."""
    return message._pb if hasattr(message, "_pb") else message
