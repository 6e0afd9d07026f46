//! A network that can be broken: a TCP proxy in front of a server.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::free_port;

/// Forwards connections to a server, for as long as it lives, in the runtime that made it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: Arc<Mutex<String>>,
    weather: Arc<watch::Sender<Weather>>,
    accepting: JoinHandle<()>,
}

/// What happens to the traffic.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    delay: Duration,
    stalled: bool,
    refusing: bool,
    /// Connections of an earlier era end.
    era: u64,
}

impl Proxy {
    /// In front of `target` (`host:port`).
    pub async fn to(target: impl Into<String>) -> Self {
        let (port, target) = (free_port(), Arc::new(Mutex::new(target.into())));
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let listener = listen(port).await.expect("a free port can be bound");
        let accepting = tokio::spawn(accept(
            listener,
            port,
            Arc::clone(&target),
            Arc::clone(&weather),
        ));
        Self {
            port,
            target,
            weather,
            accepting,
        }
    }

    /// `host:port` of the proxy.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Of a Redis behind the proxy.
    pub fn redis_url(&self) -> String {
        format!("redis://{}/", self.addr())
    }

    /// Ends all connections; new ones go to another server.
    pub fn retarget(&self, target: impl Into<String>) {
        *self.target.lock().unwrap() = target.into();
        self.cut();
    }

    /// Holds back each piece of traffic, in both directions, for this long.
    pub fn delay(&self, delay: Duration) {
        self.change(|weather| weather.delay = delay);
    }

    /// Nothing passes any more; connections stay open, and new ones are accepted.
    pub fn stall(&self) {
        self.change(|weather| weather.stalled = true);
    }

    /// Ends all connections; new ones are accepted.
    pub fn cut(&self) {
        self.change(|weather| weather.era += 1);
    }

    /// Ends all connections, and refuses new ones once this returns.
    pub async fn refuse(&self) {
        self.change(|weather| {
            weather.refusing = true;
            weather.era += 1;
        });
        while TcpStream::connect(self.addr()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// All is well again once this returns.
    pub async fn heal(&self) {
        self.change(|weather| {
            *weather = Weather {
                era: weather.era,
                ..Weather::default()
            }
        });
        while TcpStream::connect(self.addr()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await
}

async fn accept(
    listener: TcpListener,
    port: u16,
    target: Arc<Mutex<String>>,
    weather: Arc<watch::Sender<Weather>>,
) {
    let mut listener = Some(listener);
    let mut changes = weather.subscribe();
    loop {
        let refusing = changes.borrow_and_update().refusing;
        match (&listener, refusing) {
            (Some(_), true) => listener = None,
            (None, false) => listener = listen(port).await.ok(),
            _ => {}
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            Ok((client, _)) = accepted => {
                let target = target.lock().unwrap().clone();
                tokio::spawn(forward(client, target, weather.subscribe()));
            }
        }
    }
}

/// Both directions of one connection, until either ends or the era does.
async fn forward(client: TcpStream, target: String, mut weather: watch::Receiver<Weather>) {
    let born = weather.borrow().era;
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = pump(from_client, to_server, weather.clone()) => {}
        _ = pump(from_server, to_client, weather.clone()) => {}
        _ = weather.wait_for(|now| now.era != born) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if weather.wait_for(|now| !now.stalled).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}
