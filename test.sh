#!/bin/bash
# Runs all tests against real servers. Arguments go to `cargo test`: ./test.sh --test it, ./test.sh -- some_test.
#
# Servers come from Docker if its engine answers, else from programs of this machine; what is missing is pulled, built
# or installed where that is possible. TEST_SERVERS=docker or TEST_SERVERS=local forces one of the two, and
# TEST_REDIS_URL, TEST_POSTGRES_URL, TEST_MARIADB_URL name servers that run already (see tests/it/support/mod.rs:
# that Redis is flushed).
set -euo pipefail
cd "$(dirname "$0")"

say() { echo "test.sh: $*"; }
die() { echo "test.sh: $*" >&2; exit 1; }

engine() { command -v docker >/dev/null && timeout 2 docker version --format '{{.Server.Version}}' 2>/dev/null; }

# Whether one of these programs is where the tests look for them.
has() {
  local name place places
  IFS=: read -ra places <<<"$PATH"
  for name in "$@"; do
    for place in "${places[@]}" /usr/sbin /usr/local/sbin /usr/lib/postgresql/*/bin; do
      [ ! -x "$place/$name" ] || return 0
    done
  done
  return 1
}

root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
can_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

# Debian may start a service for a package. It does no harm: the tests start servers of their own on ports of their own.
install() {
  can_install || die "missing here: $*. Install it (on Debian: sudo apt-get install $*), or start Docker"
  say "installing $*"
  local said
  said=$(apt update -qq && apt install -y --no-install-recommends "$@") || die "$said"
}
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get "$@" 2>&1; }

# Clusters and sentinels are several servers on ports that they choose themselves: always programs.
have_fleets() {
  [ -n "${TEST_REDIS_PROGRAM:-}" ] || has redis-server valkey-server || install redis-server
}

# The images that the tests ask for, of those servers that no URL names.
images() {
  [ -n "${TEST_REDIS_URL:-}" ] || echo "${TEST_REDIS_IMAGE:-redis:8.0}"
  [ -n "${TEST_POSTGRES_URL:-}" ] || echo "${TEST_POSTGRES_IMAGE:-postgres:17}"
  [ -n "${TEST_MARIADB_URL:-}" ] || echo "${TEST_MARIADB_IMAGE:-mariadb:11.8}"
}

have_images() {
  local image missing=()
  for image in $(images); do
    docker image inspect "$image" >/dev/null 2>&1 || missing+=("$image")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "pulling ${missing[*]}"
  for image in "${missing[@]}"; do
    timeout 300 docker pull -q "$image" || { build_images "${missing[@]}"; return; }
  done
}

build_images() {
  can_install || return 1
  say "no registry gives $*: building from Debian packages"
  "${root[@]}" .ci/images/build.sh "$@"
}

have_programs() {
  local missing=()
  [ -n "${TEST_REDIS_URL:-}" ] || has redis-server valkey-server || missing+=(redis-server)
  [ -n "${TEST_POSTGRES_URL:-}" ] || has postgres || missing+=(postgresql)
  [ -n "${TEST_MARIADB_URL:-}" ] || has mariadbd mysqld || missing+=(mariadb-server-core mariadb-client-core)
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}

command -v cargo >/dev/null || die "no cargo on PATH: install a Rust toolchain (rustup)"
has cc || install gcc libc6-dev # SQLite is compiled

case "${TEST_SERVERS:-}" in
  docker)
    engine >/dev/null || die "TEST_SERVERS=docker, but no Docker engine answers"
    have_images || die "TEST_SERVERS=docker, but there is no $(images | xargs)"
    ;;
  local) have_programs ;;
  "")
    if engine >/dev/null && have_images; then
      TEST_SERVERS=docker
    else
      TEST_SERVERS=local
      have_programs
    fi
    ;;
  *) die "TEST_SERVERS=$TEST_SERVERS: it is docker or local" ;;
esac
export TEST_SERVERS
have_fleets

case "$TEST_SERVERS" in
  docker) say "servers from Docker $(engine); clusters and sentinels from programs of this machine" ;;
  local) say "servers from programs of this machine" ;;
esac
# The benchmark is a program; what it compares with would only be built here.
exec cargo test --workspace --exclude sea-orm-cache-bench --all-features "$@"
