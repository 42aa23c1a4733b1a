#!/bin/sh
# in-tree.sh SUITE[+SUITE…] COMMAND…: run COMMAND as root in a Debian of another release, in a copy of this checkout.
#
# The tree of a release is made once by debootstrap below $WARDKEY_TREES (default /var/cache/wardkey/trees), as bare as
# minbase with make. +SUITE makes packages of an older release available too, as on a machine that was upgraded from it.
# COMMAND has namespaces of its own: what it starts ends with it. The copy is /srv/wardkey; it keeps its .venv.
# Mirror, certificates, pip's and npm's configuration are those of this machine, read each time.
set -eu
cd "$(dirname "$0")/.."
suites=$1 suite=${1%%+*} trees=${WARDKEY_TREES:-/var/cache/wardkey/trees}
tree=$trees/$suites copy=$trees/$suites/srv/wardkey
shift

fail() { echo "error: $1" >&2; echo " hint: $2" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || fail "root is needed for a tree" "run it as root"
command -v debootstrap >/dev/null || fail "debootstrap is not installed" "apt-get install debootstrap"

# The mirror that apt uses here, unless WARDKEY_MIRROR names another.
mirror=${WARDKEY_MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
    awk '$1 == "Debian" && $2 == "main" && $3 !~ /security/ { print $4; exit }')}
[ -n "$mirror" ] || fail "apt of this machine knows no mirror of Debian" "WARDKEY_MIRROR=URL $0 …"

if ! [ -e "$tree/.complete" ]; then
    echo "in-tree: making $tree with debootstrap" >&2
    mkdir -p "$trees"
    rm -rf "$tree.new"
    script=/usr/share/debootstrap/scripts/$suite
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    debootstrap --variant=minbase --include=ca-certificates,make "$suite" "$tree.new" "$mirror" "$script" \
        >"$tree.log" 2>&1 || fail "debootstrap failed" "see $tree.log"
    touch "$tree.new/.complete"
    mv "$tree.new" "$tree"
fi

# One at a time: the next one would replace the copy under the first.
exec 9>"$tree.lock"
flock 9

# Packages come from where this machine's come from.
rm -f "$tree"/etc/apt/sources.list "$tree"/etc/apt/sources.list.d/*
components=main
! grep -q "^ID=ubuntu" "$tree/etc/os-release" || components="main universe"
echo "$suites" | tr + '\n' | sed "s|.*|deb $mirror & $components|" >"$tree/etc/apt/sources.list"
for path in /etc/apt/apt.conf.d /etc/apt/auth.conf.d /etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.pip /root/.npmrc \
    /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    [ -e "$path" ] || continue
    mkdir -p "$tree${path%/*}"
    cp -rL "$path" "$tree${path%/*}/"
done
# An index on this machine's disk is not there.
find "$tree/etc/pip.conf" "$tree/etc/xdg/pip" "$tree/root" -maxdepth 3 -name pip.conf \
    -exec sed -i 's|file://[^ ]*||g' {} + 2>/dev/null || true

# The checkout as it is now, committed or not.
mkdir -p "$copy"
find "$copy" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
git ls-files -z --cached --others --exclude-standard |
    tar --create --null --ignore-failed-read --files-from - --warning=no-failed-read | tar --extract --directory "$copy"

export tree
exec unshare --mount --pid --fork --kill-child sh -eu -c '
    mount --bind "$tree" "$tree"  # a mount point, as a root is: tests unshare mounts below it
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$tree/dev/shm"  # tests here do not see the processes of homes there
    mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
    exec chroot "$tree" env -u VIRTUAL_ENV -u PYTHONPATH HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        sh -c "cd /srv/wardkey && exec \"\$@\"" sh "$@"' sh "$@"
