#!/bin/bash
# As much of the official Postgres image's contract as the tests use: POSTGRES_HOST_AUTH_METHOD, PGDATA, and arguments
# that begin with "-" are the server's.
set -eo pipefail
case "${1:-}" in ""|-*) set -- postgres "$@" ;; esac
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chmod 700 "$PGDATA"
  chown -R postgres:postgres "$PGDATA" /run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  auth="${POSTGRES_HOST_AUTH_METHOD:?only this way of authentication is known here}"
  initdb --no-sync --username=postgres --auth="$auth"
  echo "host all all all $auth" >> "$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
fi
exec "$@"
