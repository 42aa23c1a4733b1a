#!/bin/sh
# install-extension.sh PG_CONFIG [DESTDIR]: put the built extension where CREATE EXTENSION finds it.
set -eu
cd "$(dirname "$0")/.."
pg_config=$1 destdir=${2-}

if ! sharedir=$("$pg_config" --sharedir 2>/dev/null); then
    echo "error: $pg_config does not run" >&2
    echo " hint: make install PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config" >&2
    exit 1
fi
if [ -f "$("$pg_config" --pgxs)" ]; then
    make --no-print-directory --silent -f tools/pgxs.mk PG_CONFIG="$pg_config" DESTDIR="$destdir" install
else
    install -d "$destdir$sharedir/extension"
    install -m 644 sql/wardkey.control sql/dist/*.sql "$destdir$sharedir/extension/"
fi
echo "extension files installed into $destdir$sharedir/extension"
