#!/bin/bash
# As much of the official MariaDB image's contract as the tests use: root without a password
# (MARIADB_ALLOW_EMPTY_ROOT_PASSWORD), and arguments that begin with "-" are the server's.
set -eo pipefail
case "${1:-}" in ""|-*) set -- mariadbd "$@" ;; esac
data=/var/lib/mysql
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$data" /run/mysqld
  chown -R mysql:mysql "$data" /run/mysqld
  exec setpriv --reuid=mysql --regid=mysql --clear-groups "$0" "$@"
fi
if [ ! -d "$data/mysql" ]; then
  : "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:?passwords are not known here}"
  mariadb-install-db --skip-name-resolve --auth-root-authentication-method=normal --skip-test-db --datadir="$data" >/dev/null
fi
# Root from every address. One statement per line, because the server reads it by line.
cat > /run/mysqld/root.sql <<'SQL'
CREATE USER IF NOT EXISTS root@'%';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
exec "$@" --datadir="$data" --socket=/run/mysqld/mysqld.sock --bind-address="*" --port=3306 --init-file=/run/mysqld/root.sql
