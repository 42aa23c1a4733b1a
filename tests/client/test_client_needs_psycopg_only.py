"""``pip install wardkey`` is enough for a client: psycopg, and nothing that the command needs."""

import subprocess
import sys

_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
_ABSENT = "alembic,click,cryptography,jinja2,msgspec,psutil,psycopg_pool,rich,sqlalchemy"


def _run(code: str, absent: str = _ABSENT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT + code, absent], capture_output=True, text=True, check=False
    )


def test_client_names_the_pools_it_needs() -> None:
    done = _run(
        "import wardkey, wardkey.errors, psycopg\n"
        "try:\n    wardkey.Wards('host=/nowhere')\n"
        "except wardkey.errors.MissingSoftware as error:\n    print(error.hint)\n"
    )
    assert (done.returncode, done.stdout) == (0, "pip install 'wardkey[pool]'\n"), done.stderr


def test_client_connects_and_raises_its_errors_with_the_pools() -> None:
    done = _run(
        "import wardkey, wardkey.errors\n"
        "try:\n    wardkey.Wards('host=/nowhere', timeout=0.1).getconn('acme')\n"
        "except wardkey.errors.Unreachable:\n    print('refused')\n",
        absent=_ABSENT.replace("psycopg_pool,", ""),
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_command_names_what_it_needs() -> None:
    done = _run("from wardkey.__main__ import main\nsys.exit(main())")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the command needs the package click", " hint: pip install 'wardkey[cli]'"
    ]  # fmt: skip


def test_gateway_needs_no_framework_and_names_its_extra() -> None:
    absent = "alembic,fastapi,flask,jinja2,msgspec,psutil,psycopg_pool,rich,sqlalchemy,starlette,uvicorn"
    run = "from wardkey.cli import main\nsys.exit(main(['gateway', 'run', '--issuers', '/x', '--port', '0']))"
    done = _run("import wardkey.gateway\n" + run, absent)
    assert done.returncode == 1 and "(pip install 'wardkey[gateway]')" in done.stderr, done.stderr
