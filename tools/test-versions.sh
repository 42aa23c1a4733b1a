#!/bin/sh
# test-versions.sh [17|18|upgrade|15|16]…: what depends on PostgreSQL's version, in trees that have it (tools/in-tree.sh).
#
# By default 17 (Debian 13), 18 (Debian 14) and upgrade: 15 to 17 to 18 by pg_upgrade, in a tree that has all three, as a
# machine has after upgrades of Debian. 15 is Debian 12. 16 is Ubuntu 24.04, which needs WARDKEY_MIRROR: a mirror of Ubuntu.
#
# Not in CI, which `make test` fills. Run it before a release, when Debian has a new minor release of PostgreSQL, and after
# a change of policies, faces, privileges or hardening: planner and catalogs differ. A version's suites are about a quarter
# of the work of `make test`, pg_upgrade is one test of 2 minutes.
set -eu
cd "$(dirname "$0")/.."

in_tree() { echo "== $*" >&2; tools/in-tree.sh "$@"; }

[ $# -gt 0 ] || set -- 17 18 upgrade
for version in "$@"; do
    case $version in
    15) tree=bookworm ;;
    16) tree=noble ;;
    17) tree=trixie ;;
    18) tree=forky ;;
    upgrade) tree=forky+trixie+bookworm ;;
    *) echo "error: no tree for $version" >&2; exit 2 ;;
    esac
    if [ "$version" = upgrade ]; then
        in_tree $tree tools/setup.sh test
        in_tree $tree apt-get -qq install -y --no-install-recommends postgresql-15 postgresql-plpython3-15 \
            postgresql-17 postgresql-plpython3-17 python3.11 python3.13
        in_tree $tree .venv/bin/python -m pytest tests/versions
    else
        in_tree $tree sh -c "rm -rf /var/lib/wardkey; make demo"
        in_tree $tree tools/setup.sh test
        in_tree $tree .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
            tests/sql tests/security tests/upgrade tests/client
    fi
done
