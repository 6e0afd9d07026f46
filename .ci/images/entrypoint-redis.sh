#!/bin/sh
# The contract of the official Redis and Valkey images: arguments that begin with "-" are the server's, root drops to
# the service's user, protected mode is off (the published port is on the host's loopback).
set -e
server=/usr/bin/redis-server user=redis
[ -x "$server" ] || server=/usr/bin/valkey-server user=valkey
case "${1:-}" in ""|-*) set -- "$server" "$@" ;; esac
case "$1" in *-server) set -- "$@" --protected-mode no ;; esac
chown -R "$user" .
exec setpriv --reuid="$user" --regid="$user" --clear-groups "$@"
