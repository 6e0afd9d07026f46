#!/bin/bash
# How much longer a service takes to compile, from nothing, with us: bash benches/compile-time.sh
#
# Two generated services with the same entity and the same connections; one of them caches. Both have SeaORM with
# Postgres, Redis and Tokio, with the same features, so that only we and what we alone bring along differ. Release
# builds, once each, from empty target folders, with the crates downloaded before. Ten minutes on two cores.
#
# Ends with 1 if it takes more than 15 % longer. `compile-time.sh --check` only looks whether both services are right.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
goal=15
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

service() { # name dependency derive read
  mkdir -p "$work/$1/src"
  # The same versions as here.
  cp Cargo.lock "$work/$1/"
  cat >"$work/$1/Cargo.toml" <<EOF
[package]
name = "service"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
redis = { version = "1.8", default-features = false, features = ["tokio-comp", "script"] }
sea-orm = { version = "2.0", features = ["sqlx-postgres", "runtime-tokio", "postgres-array"] }
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
$2
EOF
  cat >"$work/$1/src/main.rs" <<EOF
use sea_orm::{Database, EntityTrait};

mod city {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel$3)]
    #[sea_orm(table_name = "city")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub country_id: i64,
        pub name: String,
        pub latitude: f64,
        pub longitude: f64,
        pub population: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
$4
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = redis::Client::open("redis://127.0.0.1/")?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").exec_async(&mut redis).await?;
    let db = Database::connect("postgres://localhost/service").await?;
    println!("{:?}", city::Entity::find_by_id(1).one(&db).await?);
    $5
    Ok(())
}
EOF
}

service without "" "" \
  "    impl ActiveModelBehavior for ActiveModel {}" ""
service with "sea-orm-cache = { path = \"$repo\" }" ", sea_orm_cache::CachedEntity" "" \
  'let cache = sea_orm_cache::Cache::builder().redis("redis://127.0.0.1/").build().await?;
    println!("{:?}", city::Entity::cached_get(1, &cache.attach(db)).await?);'

cargo_in() { # name command...
  local name=$1; shift
  # A target folder of its own, whatever the environment says; no wrapper that keeps what it compiled before.
  CARGO_TARGET_DIR="$work/$name/target" RUSTC_WRAPPER= cargo "$@" --manifest-path "$work/$name/Cargo.toml"
}

for name in without with; do
  # Takes from the lock file what is not used, and downloads the rest.
  cargo_in "$name" fetch --quiet
done

if [ "${1:-}" = --check ]; then
  for name in without with; do cargo_in "$name" check --quiet; done
  echo "both services compile"
  exit 0
fi

build() { # name; sets wall and user, in milliseconds
  TIMEFORMAT='%R %U'
  local times
  times=$({ time cargo_in "$1" build --release --quiet >"$work/$1/log" 2>&1; } 2>&1) || { cat "$work/$1/log"; exit 2; }
  read -r wall user < <(tr -d . <<<"$times" | sed 's/\b0*\([0-9]\)/\1/g')
  echo "$1 sea-orm-cache: $wall ms, $user ms of CPU time"
}

build without
wall_without=$wall user_without=$user
build with
longer=$(((wall - wall_without) * 100 / wall_without))
more=$(((user - user_without) * 100 / user_without))
verdict=ok
[ "$longer" -le "$goal" ] || verdict=short
echo "cold compile: $longer % longer, $more % more CPU time (goal: at most $goal % longer): $verdict"
[ "$verdict" = ok ]
