//! Where the server may be and how it is signed in to: sentinels, TLS, unix sockets, ACL users.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sea_orm::{ActiveModelTrait, DatabaseConnection};
use sea_orm_cache::store::{TlsClient, TlsOptions};
use sea_orm_cache::{Cache, CacheBuilder, CachedConnection, WritePolicy};

use crate::conformance::server::{Server, free_port};
use crate::faults::traffic::{Traffic, empty_database};
use crate::outages::{database, hits_again, name, rename, until};
use crate::support::{self, Proxy, Sentinel};

/// Reads, writes and reads through this cache, and finds every step cached.
async fn works(builder: CacheBuilder) -> CachedConnection {
    let (_database, raw) = database().await;
    works_on(builder, raw).await
}

async fn works_on(builder: CacheBuilder, raw: DatabaseConnection) -> CachedConnection {
    let cache = builder.write_policy(WritePolicy::Strict).build().await;
    let db = cache.unwrap().attach(raw);
    hits_again(&db, "PARIS").await;
    rename("renamed").update(&db).await.unwrap();
    hits_again(&db, "renamed").await;
    assert_eq!(db.cache().stats().entity("city").errors, 0);
    db
}

async fn refusal(builder: CacheBuilder) -> String {
    builder.build().await.unwrap_err().to_string()
}

fn text(server: &Server, words: &[&str]) -> String {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(&mut server.raw()).unwrap()
}

/// A server that sentinels watch, with a replica.
struct Watched {
    primary: Server,
    replica: Server,
    sentinel: Sentinel,
}

async fn watched() -> Watched {
    let primary = Server::start();
    let port = primary.port().to_string();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]);
    let up = "master_link_status:up";
    until(async || text(&replica, &["INFO", "replication"]).contains(up)).await;
    let sentinel = Sentinel::of(primary.port()).await;
    until(async || sentinel.knows_a_replica().await).await;
    Watched {
        primary,
        replica,
        sentinel,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinels_under_load_costs_hits_and_nothing_else() {
    let mut watched = watched().await;
    let (_database, raw) = empty_database().await;
    let url = watched.sentinel.url();
    // The first sentinel is away.
    let sentinels = ["redis://127.0.0.1:1/".to_owned(), url];
    let builder = || Cache::builder().sentinel(sentinels.clone(), "main");
    let traffic = Traffic::begin(&raw, builder).await;
    traffic.goes_on(500).await;
    watched.primary.kill();
    traffic.goes_on(100).await;
    let replica = watched.replica.address();
    until(async || watched.sentinel.primary().await.as_ref() == Some(&replica)).await;
    traffic.goes_on(500).await;
    traffic.end("sentinel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_the_sentinels_gave_up_is_left_though_it_answers() {
    let watched = watched().await;
    let (_database, raw) = database().await;
    let front = Proxy::to(watched.sentinel.address()).await;
    let cache = Cache::builder().sentinel([front.redis_url()], "main");
    let db = works_on(cache, raw).await;
    let other = Server::start();
    let elsewhere = Sentinel::of(other.port()).await;
    // Both servers answer; only the sentinels say something else.
    front.retarget(elsewhere.address());
    until(async || {
        name(&db).await;
        text(&other, &["EXISTS", "soc:root"]) == "1"
    })
    .await;
    hits_again(&db, "renamed").await;
}

#[tokio::test]
async fn the_sentinels_and_the_server_may_ask_for_different_credentials() {
    let primary = Server::start_with(&["--requirepass", "of-the-server"]);
    let lines = "sentinel auth-pass main of-the-server";
    let sentinel = Sentinel::with(primary.port(), "of-the-sentinel", lines).await;
    let url = sentinel.url();
    let server = "redis://:of-the-server@main/3";
    works(Cache::builder().sentinel([&url], server)).await;
    let error = refusal(Cache::builder().sentinel([&url], "main")).await;
    assert!(error.contains("NOAUTH"), "{error}");
    let error =
        refusal(Cache::builder().sentinel([format!("redis://{}", sentinel.address())], server))
            .await;
    assert!(error.contains("NOAUTH"), "{error}");
    let error = refusal(Cache::builder().sentinel([&url], "nobody")).await;
    assert!(error.contains("know no primary `nobody`"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_is_a_place() {
    let folder = Folder::new();
    let socket = folder.file("redis.sock");
    let server = Server::start_with(&["--unixsocket", &socket, "--requirepass", "secret"]);
    works(Cache::builder().redis(format!("redis+unix://{socket}?db=1&pass=secret"))).await;
    drop(server);
}

/// What README tells users to give.
const ACL: &str = "ACL SETUSER cache on >secret resetkeys ~soc:* resetchannels -@all \
    +ping +info +select +client|setinfo +client|tracking +script|load +eval +evalsha \
    +hget +hset +hdel +hkeys +hstrlen +type +del +pttl +pexpire +pexpireat +persist +time +scan";
/// And these of a cluster.
const ACL_CLUSTER: &str = "ACL SETUSER cache +cluster|slots +asking";

/// The words of such a command for a server that gives this information about itself.
fn acl(line: &'static str, info: &str) -> Vec<&'static str> {
    // Older ones have no such command, and are not sent it in vain.
    let old = info.contains("redis_version:7.0.");
    let words = line.split_whitespace();
    words
        .filter(|word| !old || *word != "+client|setinfo")
        .collect()
}

#[tokio::test]
async fn a_walk_that_is_not_permitted_says_so_and_breaks_nothing() {
    let server = Server::start();
    let line = ACL.strip_suffix(" +scan").unwrap();
    text(&server, &acl(line, &text(&server, &["INFO", "server"])));
    let url = format!("redis://cache:secret@{}/", server.address());
    let cache = Cache::builder().redis(&url).build().await.unwrap();
    cache
        .set("a", &1, &sea_orm_cache::Policy::new())
        .await
        .unwrap();
    let error = cache.remove_matching("a*").await.unwrap_err().to_string();
    assert!(
        error.contains("NOPERM") && error.contains("scan"),
        "{error}"
    );
    assert_eq!(cache.get::<i32>("a").await, Some(1));
    assert!(!cache.stats().degraded);
}

#[tokio::test]
async fn an_acl_user_needs_few_permissions() {
    let server = Server::start();
    text(&server, &acl(ACL, &text(&server, &["INFO", "server"])));
    let url = format!("redis://cache:secret@{}/2", server.address());
    works(Cache::builder().redis(&url)).await;
    let (_database, raw) = database().await;
    let cache = Cache::builder().redis(&url).l1(1 << 20).build().await;
    let db = cache.unwrap().attach(raw);
    until(async || {
        name(&db).await;
        db.cache().stats().entity("city").l1_hits > 0
    })
    .await;
    let (cache, policy) = (db.cache(), sea_orm_cache::Policy::new());
    cache.set("a", &1, &policy).await.unwrap();
    assert_eq!(cache.remove_matching("a*").await.unwrap(), 1);
    let denied = redis::cmd("ACL").arg("LOG").query(&mut server.raw());
    let denied: Vec<redis::Value> = denied.unwrap();
    assert!(denied.is_empty(), "{denied:?}");
    let error = refusal(Cache::builder().redis(&url).prefix("other")).await;
    assert!(error.contains("NOPERM"), "{error}");
}

/// Reads and writes with the in-process tier, if the server lets it.
async fn tries(url: &str, raw: &DatabaseConnection) {
    if let Ok(cache) = Cache::builder().redis(url).l1(1 << 20).build().await {
        let db = cache.attach(raw.clone());
        for _ in 0..3 {
            name(&db).await;
        }
        rename("renamed").update(&db).await.unwrap();
        let _ = db.cache().remove_matching("*").await;
    }
}

#[tokio::test]
async fn an_acl_user_needs_each_of_these_permissions() {
    let server = Server::start();
    let words = acl(ACL, &text(&server, &["INFO", "server"]));
    let url = format!("redis://cache:secret@{}/2", server.address());
    let (_database, raw) = database().await;
    let permissions = words.iter().filter(|word| word.starts_with('+'));
    let mut idle = Vec::new();
    for permission in permissions {
        let without: Vec<_> = words.iter().filter(|word| *word != permission).collect();
        text(&server, &["ACL", "DELUSER", "cache"]);
        text(
            &server,
            &without.iter().map(|word| **word).collect::<Vec<_>>(),
        );
        text(&server, &["FLUSHALL"]);
        text(&server, &["ACL", "LOG", "RESET"]);
        tries(&url, &raw).await;
        let denied = redis::cmd("ACL").arg("LOG").query(&mut server.raw());
        let denied: Vec<redis::Value> = denied.unwrap();
        if denied.is_empty() {
            idle.push(*permission);
        }
    }
    // Heartbeats come later than this test ends.
    assert_eq!(idle, ["+ping"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_user_of_a_cluster_needs_two_more() {
    let cluster = support::Cluster::start().await;
    for node in cluster.nodes() {
        let info = node.text(&["INFO", "server"]).await;
        node.cli(&acl(ACL, &info)).await;
        node.cli(&acl(ACL_CLUSTER, &info)).await;
    }
    let port = cluster.nodes()[0].port();
    let url = format!("redis://cache:secret@127.0.0.1:{port}/");
    let (_database, raw) = database().await;
    let db = works_on(Cache::builder().cluster([&url]), raw).await;
    // What a key that is on its way needs.
    let key = "soc:main:city:pk:1";
    let slot = cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", key]).await;
    let slot = redis::from_redis_value(slot).unwrap();
    let port = cluster.owner(slot).await.port();
    let mut others = cluster.nodes()[..3].iter();
    let to = others.find(|node| node.port() != port).unwrap();
    let read = async || hits_again(&db, "renamed").await;
    cluster.move_slot(slot, to, read).await;
    for node in cluster.nodes() {
        let denied = node.cli(&["ACL", "LOG"]).await;
        assert_eq!(denied, redis::Value::Array(vec![]));
    }
}

/// An authority, and a server that shows a certificate of it and asks for one.
struct Secure {
    _server: Server,
    port: u16,
    authority: CertifiedIssuer<'static, KeyPair>,
    _folder: Folder,
}

impl Secure {
    fn start() -> Self {
        let folder = Folder::new();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let own = certificate(&authority);
        let files = [
            ("ca", authority.pem().into_bytes()),
            ("cert", own.certificate),
            ("key", own.key),
        ];
        let [ca, cert, key] = files.map(|(name, text)| {
            let file = folder.file(name);
            fs::write(&file, text).unwrap();
            file
        });
        let port = free_port();
        let tls = port.to_string();
        let server = Server::start_with(&[
            "--tls-port",
            &tls,
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "yes",
        ]);
        Self {
            _server: server,
            port,
            authority,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}/", self.port)
    }

    fn tls(&self) -> TlsOptions {
        TlsOptions {
            authorities: Some(self.authority.pem().into_bytes()),
            client: Some(certificate(&self.authority)),
        }
    }
}

fn certificate(authority: &CertifiedIssuer<'static, KeyPair>) -> TlsClient {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    TlsClient {
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    }
}

#[tokio::test]
async fn tls_with_certificates_of_ones_own() {
    let secure = Secure::start();
    let builder = || Cache::builder().redis(secure.url());
    works(builder().tls(secure.tls())).await;
    let error = refusal(builder()).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    let tls = TlsOptions {
        client: None,
        ..secure.tls()
    };
    // What the server says of it depends on who closes first.
    refusal(builder().tls(tls)).await;
    let plain = secure.url().replace("rediss", "redis");
    refusal(Cache::builder().redis(plain)).await;
    let tls = TlsOptions {
        authorities: Some(b"-----BEGIN CERTIFICATE-----\n!\n".to_vec()),
        client: None,
    };
    let error = refusal(builder().tls(tls)).await;
    assert!(error.contains("certificate PEM"), "{error}");
    assert!(!format!("{:?}", secure.tls()).contains("PRIVATE"));
}

/// A folder that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("soc-places-{:016x}", fastrand::u64(..));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        Path::display(&self.0.join(name)).to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
