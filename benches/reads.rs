//! What cached reads cost, beside what one would write by hand.
//!
//! `cargo bench --bench reads` starts a Redis of its own on a free loopback port, and uses SQLite in a temporary file,
//! or the database of `DATABASE_URL`, where it drops and creates the tables `bench_country` and `bench_city`.
//! `-- --smoke` takes seconds and says nothing about speed; `-- memory` runs the tables with that in their titles.
//!
//! The rows of one table are measured in turns, many short rounds each, and a figure is the median of the rounds:
//! compare within a table of one run only. "CPU" is what this process spent, the servers' not included; its ratio is
//! that to the first row, as is the ratio of throughput.

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sea_orm::sea_query::Table;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, Database, DatabaseConnection, EntityTrait, IntoActiveModel,
    Schema, TransactionTrait,
};
use sea_orm_cache::{Cache, CachedConnection};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

mod country {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity, serde::Deserialize)]
    #[sea_orm(table_name = "bench_country")]
    #[cached(ttl = "1h")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub iso2: String,
        pub iso3: String,
        pub name: String,
        pub capital: String,
        pub continent: String,
        pub area_km2: f64,
        pub population: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity, Serialize, Deserialize)]
    #[sea_orm(table_name = "bench_city")]
    #[cached(ttl = "1h")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub country_id: i64,
        pub name: String,
        pub admin1: String,
        pub latitude: f64,
        pub longitude: f64,
        pub population: i64,
        pub timezone: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let plan = if smoke { Plan::SMOKE } else { Plan::FULL };
    let server = RedisServer::start().await?;
    let file = TempFile::new();
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| file.url());
    let world = Arc::new(World::new(&server, &url, &plan).await?);
    println!(
        "{} cities, {:?}",
        world.ids.len(),
        world.plain.get_database_backend()
    );
    for in_flight in [1, 16, 64, 256] {
        hits_in_redis(&world, &plan, in_flight).await?;
    }
    hits_in_memory(&world, &plan, 1).await?;
    hits_in_memory(&world, &plan, 64).await?;
    many_rows(&world, &plan).await?;
    all_rows(&world, &plan).await?;
    drops(&world, &plan).await?;
    cold_rows(&world, &plan).await?;
    Ok(())
}

/// How long to measure.
struct Plan {
    cities: usize,
    rounds: usize,
    round: Duration,
}

impl Plan {
    const FULL: Self = Self {
        cities: usize::MAX,
        rounds: 21,
        round: Duration::from_millis(100),
    };
    const SMOKE: Self = Self {
        cities: 2_000,
        rounds: 3,
        round: Duration::from_millis(10),
    };
}

async fn hits_in_redis(world: &Arc<World>, plan: &Plan, in_flight: usize) -> Outcome<()> {
    Contest::new(
        format!("one row from Redis, {in_flight} in flight"),
        in_flight,
    )
    .enter("bare HGET of the same bytes", world, bare_hget)
    .enter("cache-aside by hand: GET, serde_json", world, by_hand)
    .enter("pipeline of the 3 HGETs of a hit", world, bare_hgets)
    .enter("cached_get", world, cached_get)
    .enter("find_by_id, no cache", world, find_by_id)
    .run(plan)
    .await
}

async fn hits_in_memory(world: &Arc<World>, plan: &Plan, in_flight: usize) -> Outcome<()> {
    Contest::new(
        format!("one row from memory, {in_flight} in flight"),
        in_flight,
    )
    .enter("find_by_id, no cache", world, find_by_id)
    .enter("cached_get", world, get_from_memory)
    .run(plan)
    .await
}

async fn many_rows(world: &Arc<World>, plan: &Plan) -> Outcome<()> {
    Contest::new(format!("{MANY} rows from Redis"), 1)
        .enter("bare pipeline of HGETs", world, bare_pipeline)
        .enter("cached_get_many", world, cached_get_many)
        .run(plan)
        .await
}

async fn all_rows(world: &Arc<World>, plan: &Plan) -> Outcome<()> {
    Contest::new("all 252 countries from Redis".to_owned(), 1)
        .enter("find().all(), no cache", world, find_all)
        .enter("cached_all", world, cached_all)
        .run(plan)
        .await
}

async fn drops(world: &Arc<World>, plan: &Plan) -> Outcome<()> {
    Contest::new("dropping all cached rows of an entity".to_owned(), 1)
        .enter("SCAN for its keys, deleting none", world, scan)
        .enter("invalidate_all", world, invalidate_all)
        .run(plan)
        .await
}

/// Reads of different keys that nobody has cached.
async fn cold_rows(world: &Arc<World>, plan: &Plan) -> Outcome<()> {
    for in_flight in [1, 64] {
        Contest::new(format!("cold rows, {in_flight} in flight"), in_flight)
            .before_each_round(world, |world| invalidate_all(world, 0))
            .enter("find_by_id, no cache", world, find_by_id)
            .enter("cached_get", world, cached_get)
            .run(plan)
            .await?;
    }
    Ok(())
}

async fn bare_hget(world: Arc<World>, n: usize) -> Outcome<()> {
    let mut redis = world.redis.clone();
    let bytes: Option<Vec<u8>> = redis.hget(world.key(n), &world.field).await?;
    black_box(bytes.ok_or("no such value")?);
    Ok(())
}

/// What a hit sends and receives: the value and its two generations.
async fn bare_hgets(world: Arc<World>, n: usize) -> Outcome<()> {
    let mut pipeline = redis::pipe();
    pipeline.hget(world.key(n), &world.field);
    for generation in ["rows", "list"] {
        pipeline.hget(format!("soc:main:bench_city:gen:{generation}"), "g");
    }
    let values: Vec<Option<Vec<u8>>> = pipeline.query_async(&mut world.redis.clone()).await?;
    black_box(values);
    Ok(())
}

async fn by_hand(world: Arc<World>, n: usize) -> Outcome<()> {
    let bytes: Option<Vec<u8>> = world.redis.clone().get(world.json_key(n)).await?;
    let city: city::Model = serde_json::from_slice(&bytes.ok_or("no such value")?)?;
    black_box(city);
    Ok(())
}

async fn cached_get(world: Arc<World>, n: usize) -> Outcome<()> {
    let city = city::Entity::cached_get(world.id(n), &world.cached).await?;
    black_box(city.ok_or("no such city")?);
    Ok(())
}

async fn get_from_memory(world: Arc<World>, n: usize) -> Outcome<()> {
    let city = city::Entity::cached_get(world.id(n), &world.in_memory).await?;
    black_box(city.ok_or("no such city")?);
    Ok(())
}

async fn find_by_id(world: Arc<World>, n: usize) -> Outcome<()> {
    let find = city::Entity::find_by_id(world.id(n));
    black_box(find.one(&world.plain).await?.ok_or("no such city")?);
    Ok(())
}

const MANY: usize = 100;

async fn bare_pipeline(world: Arc<World>, n: usize) -> Outcome<()> {
    let mut pipeline = redis::pipe();
    for n in n..n + MANY {
        pipeline.hget(world.key(n), &world.field);
    }
    let values: Vec<Vec<u8>> = pipeline.query_async(&mut world.redis.clone()).await?;
    black_box(values);
    Ok(())
}

async fn cached_get_many(world: Arc<World>, n: usize) -> Outcome<()> {
    let ids: Vec<i64> = (n..n + MANY).map(|n| world.id(n)).collect();
    black_box(city::Entity::cached_get_many(ids, &world.cached).await?);
    Ok(())
}

async fn find_all(world: Arc<World>, _: usize) -> Outcome<()> {
    black_box(country::Entity::find().all(&world.plain).await?);
    Ok(())
}

async fn cached_all(world: Arc<World>, _: usize) -> Outcome<()> {
    black_box(country::Entity::cached_all(&world.cached).await?);
    Ok(())
}

async fn scan(world: Arc<World>, _: usize) -> Outcome<()> {
    let mut redis = world.redis.clone();
    let options = redis::ScanOptions::default()
        .with_pattern(format!("{PREFIX}*"))
        .with_count(1_000);
    let mut keys = redis.scan_options::<String>(options).await?;
    while keys.next_item().await.transpose()?.is_some() {}
    Ok(())
}

async fn invalidate_all(world: Arc<World>, _: usize) -> Outcome<()> {
    city::Entity::invalidate_all(&world.cached).await?;
    Ok(())
}

/// What the contestants work on.
struct World {
    plain: DatabaseConnection,
    cached: CachedConnection,
    in_memory: CachedConnection,
    redis: MultiplexedConnection,
    ids: Vec<i64>,
    /// Where the rows of cities are in their entries.
    field: String,
}

const PREFIX: &str = "soc:main:bench_city:pk:";

impl World {
    async fn new(server: &RedisServer, url: &str, plan: &Plan) -> Outcome<Self> {
        let plain = Database::connect(url).await?;
        let countries: Vec<country::Model> = read("countries.csv", usize::MAX)?;
        let cities: Vec<city::Model> = read("cities.csv", plan.cities)?;
        store(&plain, countries, cities.clone()).await?;
        let cache = Cache::builder().redis(server.url()).build().await?;
        let memory = Cache::builder().memory(256 << 20).build().await?;
        let redis = redis::Client::open(server.url())?;
        let mut world = Self {
            cached: cache.attach(plain.clone()),
            in_memory: memory.attach(plain.clone()),
            plain,
            redis: redis.get_multiplexed_async_connection().await?,
            ids: cities.iter().map(|city| city.id).collect(),
            field: String::new(),
        };
        world.warm(&cities).await?;
        Ok(world)
    }

    /// Every read is a hit from here on.
    async fn warm(&mut self, cities: &[city::Model]) -> Outcome<()> {
        for chunk in self.ids.chunks(1_000) {
            city::Entity::cached_get_many(chunk.iter().copied(), &self.cached).await?;
            city::Entity::cached_get_many(chunk.iter().copied(), &self.in_memory).await?;
        }
        let fields: Vec<String> = self.redis.hkeys(self.key(0)).await?;
        let value = fields.into_iter().find(|field| field.starts_with("v:"));
        self.field = value.ok_or("the first city is not cached")?;
        for chunk in cities.chunks(1_000) {
            let mut pipeline = redis::pipe();
            for city in chunk {
                pipeline.set(format!("json:{}", city.id), serde_json::to_vec(city)?);
            }
            pipeline.exec_async(&mut self.redis).await?;
        }
        Ok(())
    }

    /// Some city: those of neighbouring numbers are far apart.
    fn id(&self, n: usize) -> i64 {
        const FAR: usize = 7_919;
        self.ids[n.wrapping_mul(FAR) % self.ids.len()]
    }

    fn key(&self, n: usize) -> String {
        format!("{PREFIX}{}", self.id(n))
    }

    fn json_key(&self, n: usize) -> String {
        format!("json:{}", self.id(n))
    }
}

fn read<T: DeserializeOwned>(file: &str, most: usize) -> Outcome<Vec<T>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/data")
        .join(file);
    let rows = csv::Reader::from_path(path)?.into_deserialize().take(most);
    Ok(rows.collect::<Result<_, _>>()?)
}

async fn store(
    db: &DatabaseConnection,
    countries: Vec<country::Model>,
    cities: Vec<city::Model>,
) -> Outcome<()> {
    create(db, country::Entity).await?;
    create(db, city::Entity).await?;
    let txn = db.begin().await?;
    let rows = countries
        .into_iter()
        .map(|row| row.into_active_model().reset_all());
    country::Entity::insert_many(rows).exec(&txn).await?;
    for chunk in cities.chunks(1_000) {
        let rows = chunk
            .iter()
            .map(|row| row.clone().into_active_model().reset_all());
        city::Entity::insert_many(rows).exec(&txn).await?;
    }
    Ok(txn.commit().await?)
}

async fn create<E: EntityTrait>(db: &DatabaseConnection, entity: E) -> Outcome<()> {
    db.execute(Table::drop().table(entity.table_ref()).if_exists())
        .await?;
    let schema = Schema::new(db.get_database_backend());
    db.execute(&schema.create_table_from_entity(entity)).await?;
    Ok(())
}

/// One table: the first row is what the others are compared with.
struct Contest {
    title: String,
    in_flight: usize,
    contestants: Vec<(&'static str, Work)>,
    prepare: Work,
}

/// What one round took, or each of its turns.
#[derive(Clone, Copy)]
struct Cost {
    time: f64,
    cpu: f64,
}

/// Does its thing for each number of a range, one after another.
type Work = Box<dyn Fn(Range<usize>) -> Pin<Box<dyn Future<Output = Outcome<()>> + Send>>>;

impl Contest {
    fn new(title: String, in_flight: usize) -> Self {
        Self {
            title,
            in_flight,
            contestants: Vec::new(),
            prepare: Box::new(|_| Box::pin(async { Ok(()) })),
        }
    }

    fn before_each_round<F>(
        mut self,
        world: &Arc<World>,
        prepare: impl Fn(Arc<World>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome<()>> + Send + 'static,
    {
        let world = world.clone();
        self.prepare = Box::new(move |_| Box::pin(prepare(world.clone())));
        self
    }

    fn enter<F>(
        mut self,
        name: &'static str,
        world: &Arc<World>,
        once: impl Fn(Arc<World>, usize) -> F + Copy + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome<()>> + Send + 'static,
    {
        let world = world.clone();
        let work: Work = Box::new(move |numbers| {
            let world = world.clone();
            Box::pin(async move {
                for n in numbers {
                    once(world.clone(), n).await?;
                }
                Ok(())
            })
        });
        self.contestants.push((name, work));
        self
    }

    /// Measures in turns and prints the medians.
    async fn run(self, plan: &Plan) -> Outcome<()> {
        let mut wanted = std::env::args()
            .skip(1)
            .filter(|word| !word.starts_with("--"))
            .peekable();
        if wanted.peek().is_some() && !wanted.any(|word| self.title.contains(&word)) {
            return Ok(());
        }
        let mut sizes = Vec::new();
        for (_, work) in &self.contestants {
            sizes.push(self.calibrate(work, plan).await?);
        }
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); self.contestants.len()];
        for round in 0..plan.rounds {
            // What ran just before has its effect on what runs now.
            let mut places: Vec<usize> = (0..sizes.len()).collect();
            fastrand::shuffle(&mut places);
            for place in places {
                let (_, work) = &self.contestants[place];
                let took = self.time(work, round, sizes[place]).await?;
                let turns = (sizes[place] * self.in_flight) as f64;
                costs[place].push(Cost {
                    time: took.time / turns,
                    cpu: took.cpu / turns,
                });
            }
        }
        self.print(&costs.into_iter().map(medians).collect::<Vec<_>>());
        Ok(())
    }

    /// How often each task does it in a round.
    async fn calibrate(&self, work: &Work, plan: &Plan) -> Outcome<usize> {
        let mut size = 1;
        loop {
            let took = self.time(work, 0, size).await?;
            if took.time * 2.0 > plan.round.as_secs_f64() {
                return Ok(size);
            }
            size *= 2;
        }
    }

    async fn time(&self, work: &Work, round: usize, size: usize) -> Outcome<Cost> {
        (self.prepare)(0..0).await?;
        let (start, cpu) = (Instant::now(), cpu_time());
        let mut tasks = JoinSet::new();
        for task in 0..self.in_flight {
            let first = (round * self.in_flight + task) * size;
            tasks.spawn(work(first..first + size));
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(Cost {
            time: start.elapsed().as_secs_f64(),
            cpu: cpu_time() - cpu,
        })
    }

    fn print(&self, medians: &[Cost]) {
        println!(
            "\n{:<40} {:>12} {:>12} {:>8} {:>12} {:>8}",
            self.title, "each", "per second", "ratio", "CPU", "ratio"
        );
        for ((name, _), cost) in self.contestants.iter().zip(medians) {
            let (micros, rate, cpu) = (cost.time * 1e6, 1.0 / cost.time, cost.cpu * 1e6);
            let (faster, more) = (medians[0].time / cost.time, cost.cpu / medians[0].cpu);
            println!(
                "  {name:<38} {micros:>9.1} us {rate:>12.0} {faster:>8.2} {cpu:>9.1} us {more:>8.2}"
            );
        }
    }
}

/// The processor time that this process has spent, in seconds.
fn cpu_time() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn medians(costs: Vec<Cost>) -> Cost {
    Cost {
        time: median(costs.iter().map(|cost| cost.time).collect()),
        cpu: median(costs.iter().map(|cost| cost.cpu).collect()),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A Redis that ends with this program.
struct RedisServer {
    process: Child,
    port: u16,
}

impl RedisServer {
    async fn start() -> Outcome<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.to_string()])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("redis-server: {e}. Install it: apt-get install redis-server"))?;
        let server = Self { process, port };
        server.answers().await?;
        Ok(server)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    async fn answers(&self) -> Outcome<()> {
        let client = redis::Client::open(self.url())?;
        for _ in 0..500 {
            if client.get_multiplexed_async_connection().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("redis-server does not answer within 5 s".into())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The file of the SQLite database.
struct TempFile(PathBuf);

impl TempFile {
    fn new() -> Self {
        let name = format!("bench-reads-{}.sqlite", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn url(&self) -> String {
        format!("sqlite://{}?mode=rwc", self.0.display())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            // Not there when a database server was used.
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }
}
