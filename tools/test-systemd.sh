#!/bin/sh
# test-systemd.sh: docs/operations/install.md on a booted Debian 12, systemd and all, then what only systemd can show.
#
# The tree is that of tools/in-tree.sh, booted by systemd-nspawn (Debian's systemd-container) on this host's network:
# ports 5432 and 9188 have to be free.
set -eu
cd "$(dirname "$0")/.."
fail() { echo "error: $1" >&2; echo " hint: $2" >&2; exit 1; }
command -v systemd-nspawn >/dev/null || fail "systemd-nspawn is not installed" "apt-get install systemd-container"
tools/in-tree.sh bookworm sh -c "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y systemd-sysv \
    dbus adduser >/dev/null"

box=$(mktemp -d) booted=
trap '[ -z "$booted" ] || kill -RTMIN+4 "$booted"; sleep 5; rm -rf "$box"' EXIT
trap 'exit 130' INT TERM
cp -a "${WARDKEY_TREES:-/var/cache/wardkey/trees}/bookworm" "$box/root"
: >"$box/root/etc/machine-id"
systemd-nspawn --quiet --register=no --keep-unit --directory "$box/root" --boot >"$box/boot.log" 2>&1 &
nspawn=$!
until booted=$(pgrep -P "$nspawn" systemd); do sleep 0.2; done
inside() { nsenter -t "$booted" -m -u -i -p env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
until [ "$(inside systemctl is-system-running 2>/dev/null)" = running ]; do sleep 0.2; done

# The guide's commands as they stand there; apt-get is not asked back, and an identity provider is made up.
awk '/^```/ { inside = $0 == "```sh"; next } inside' docs/operations/install.md |
    sed 's/apt-get install/apt-get install -y -qq/; s/wardkey doctor .*/{ wardkey doctor || true; }/' >"$box/root/root/guide.sh"
cat >"$box/root/root/steps.sh" <<'END'
set -eux
export DEBIAN_FRONTEND=noninteractive
cd /srv/wardkey
trap 'test $? = 0 || journalctl --no-pager -n 40 -o cat' EXIT
sed '/^wardkey install --keeper-socket/q' /root/guide.sh >/root/first.sh
sed '1,/^wardkey install --keeper-socket/d' /root/guide.sh >/root/second.sh
sed -i '$s/ *#.*/ || true/' /root/first.sh  # it says what is still missing
. /root/first.sh
cd /root
/opt/wardkey/bin/python - <<PYTHON
import base64, json
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
x = base64.urlsafe_b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode().rstrip("=")
json.dump({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k1", "use": "sig", "x": x}]}, open("jwks.json", "w"))
PYTHON
. /root/second.sh
wardkey service install metrics
systemctl start wardkey-metrics
wardkey service status
for timer in keys prune; do systemctl start wardkey-$timer; done

: killed and stuck services are started again
systemctl reload wardkey-keeper wardkey-scribe
systemctl kill -s KILL wardkey-keeper wardkey-scribe
kill -STOP "$(systemctl show wardkey-metrics -p MainPID --value)"
until journalctl -u wardkey-metrics -o cat | grep -q "result 'watchdog'"; do sleep 1; done
until wardkey service status; do sleep 1; done

: a backup and its drill
apt-get install -y -qq age
age-keygen -o key.txt
mkdir -p /etc/wardkey
directories='--keeper-directory /var/lib/wardkey-keeper --orchestrator-directory /var/lib/wardkey/orchestrator'
echo "OPTIONS=--recipient $(age-keygen -y key.txt) $directories" >/etc/wardkey/backup.env
echo 'OPTIONS=--identity /root/key.txt --ledger /var/lib/wardkey-keeper/ledger.jsonl' >/etc/wardkey/drill.env
systemctl start wardkey-backup
systemctl start wardkey-drill
journalctl -u wardkey-drill -o cat | grep 'every tenant opens'
END
inside bash /root/steps.sh
