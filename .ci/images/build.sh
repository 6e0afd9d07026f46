#!/bin/bash
# Builds the Docker images of the test servers from Debian packages, under the names that the tests ask for, so that
# the tests find them and pull nothing. For machines that reach a Debian mirror but no container registry.
#   build.sh                 redis:8.0 postgres:17 mariadb:11.8
#   build.sh NAME...         those of the table below
# Needs root, Docker and apt. An image that this same script built is kept.
set -euo pipefail
cd "$(dirname "$0")"

# image            packages                                      user      entry point  directory
table="
redis:8.0          redis-server,redis-tools                      redis     redis        /data
valkey/valkey:8.1  valkey-server,valkey-tools                    valkey    redis        /data
postgres:17        postgresql-17,postgresql-client-17            postgres  postgres     /var/lib/postgresql/data
mariadb:11.8       mariadb-server-core,mariadb-client            mysql     mariadb      /var/lib/mysql
"
suite=trixie
base=base-files,base-passwd,dash,bash,coreutils,sed,grep,mawk,findutils,util-linux,hostname,libc-bin,gzip

# The mirror that this machine's own apt uses.
mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+).*/\2/p' | grep -v security | sed -n 1p || true
}
mirror="${DEBIAN_MIRROR:-$(mirror)}"
[ -n "$mirror" ] || { echo "no Debian mirror found in apt's sources: set DEBIAN_MIRROR" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "building images needs root" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null; }
tmp="$(mktemp -d)"; trap 'rm -rf "$tmp"' EXIT

# Runs inside mmdebstrap, on the unpacked packages. No maintainer script runs (variant=extract), so accounts are made
# here, and what no server needs is left out.
hook() { # user entry dir
  cat <<HOOK
set -e; r="\$1"
for f in passwd group; do [ -s "\$r/etc/\$f" ] || cp "\$r/usr/share/base-passwd/\$f.master" "\$r/etc/\$f"; done
echo '$1:x:999:999::/:/bin/sh' >> "\$r/etc/passwd"; echo '$1:x:999:' >> "\$r/etc/group"
mkdir -p "\$r$3" "\$r/usr/local/bin" "\$r/tmp"; chmod 1777 "\$r/tmp"; chown -R 999:999 "\$r$3"
install -m755 '$PWD/entrypoint-$2.sh' "\$r/usr/local/bin/docker-entrypoint.sh"
rm -rf "\$r/var/run"; ln -s /run "\$r/var/run"
[ -e "\$r/usr/bin/awk" ] || ln -s mawk "\$r/usr/bin/awk"
[ -e "\$r/usr/bin/sh" ] || ln -s dash "\$r/usr/bin/sh"
rm -rf "\$r"/usr/share/{doc,man,info,locale,lintian,bash-completion,bug,icons,perl,perl5,python3,i18n} \
  "\$r"/usr/lib/*-linux-gnu/{perl,perl-base,perl5,gconv,libLLVM*,libz3*} "\$r"/usr/lib/{python3*,llvm-*,udev,systemd/systemd*} \
  "\$r"/usr/bin/{perl*,python3*,mariadb-backup,mariadb-test*} "\$r"/usr/lib/postgresql/*/lib/{llvmjit*,bitcode} \
  "\$r"/var/{lib/apt,lib/dpkg,cache}/*
[ -d "\$r/usr/lib/postgresql" ] || rm -rf "\$r/usr/share/zoneinfo"
chroot "\$r" ldconfig || true
HOOK
}

command_of() { # entry packages
  case "$1" in redis) echo "${2%%,*}" ;; postgres) echo postgres ;; mariadb) echo mariadbd ;; esac
}

build() { # image packages user entry dir
  local image=$1 started=$SECONDS print path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  print=$(cat build.sh "entrypoint-$4.sh" | sha256sum | cut -c1-16)
  if [ "$(docker image inspect -f '{{index .Config.Labels "print"}}' "$image" 2>/dev/null)" = "$print" ]; then
    echo "$image: up to date"; return
  fi
  hook "$3" "$4" "$5" > "$tmp/hook"
  mmdebstrap --quiet --mode=root --variant=extract --include="$base,$2" --format=tar \
    --extract-hook="bash '$tmp/hook' \"\$1\"" "$suite" "$tmp/root.tar" "$mirror" 2>"$tmp/err" ||
    { cat "$tmp/err" >&2; return 1; }
  [ "$4" != postgres ] || path="/usr/lib/postgresql/17/bin:$path"
  docker import -c "LABEL print=$print" -c "ENV PATH=$path" -c "ENV LANG=C.UTF-8" -c "WORKDIR $5" \
    -c 'ENTRYPOINT ["docker-entrypoint.sh"]' -c "CMD [\"$(command_of "$4" "$2")\"]" "$tmp/root.tar" "$image" >/dev/null
  rm -f "$tmp/root.tar"
  echo "$image: built in $((SECONDS - started)) s"
}

[ $# -gt 0 ] || set -- redis:8.0 postgres:17 mariadb:11.8
for want in "$@"; do
  row=$(awk -v image="$want" '$1 == image' <<<"$table")
  [ -n "$row" ] || { echo "unknown image $want" >&2; exit 2; }
  # shellcheck disable=SC2086 # the row is the arguments
  build $row
done
