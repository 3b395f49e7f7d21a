//! HTTP: an API for control planes, metrics, and the dashboard. It decides nothing: whoever calls has a
//! session with the gateway like any other peer, and sees and does what that may.
//!
//! A thread of its own, which gives way to the others: [`serve`] takes connections and requests, [`route`]
//! says what an endpoint is, [`read`] and [`act`] are the endpoints, [`doors`] the callers' sessions,
//! [`openapi`] what is published about all of it.

pub mod act;
pub mod doors;
pub mod experiments;
pub mod history;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod read;
pub mod repeat;
pub mod route;
pub mod serve;
pub mod swarms;
pub mod words;

use crate::config::{ConfigError, HttpKeys};
use crate::gateway::access::Access;
use crate::gateway::side::SideDoor;
use crate::gateway::{listen, tls};
use crate::health::Health;
use doors::Doors;
use rustls::ServerConfig;
use serve::{App, Keys};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Requests that wait for the gateway at once, each on a thread.
const WAITING_THREADS: usize = 8;
/// How much this server's threads give way to all others.
const NICE: i32 = 10;
/// How long requests under way may take when the daemon stops.
const LAST: Duration = Duration::from_secs(1);

/// The server, running.
pub struct Http {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    doors: Arc<Doors>,
    tls: Keys,
}

/// The keys in the directory that the configuration names, if it names one.
///
/// # Errors
/// They cannot be used.
pub fn keys(keys: &HttpKeys) -> Result<Option<Arc<ServerConfig>>, ConfigError> {
    let load = |dir: &std::path::PathBuf| tls::load(dir, tls::Clients::MayShow);
    keys.tls.as_ref().map(load).transpose()
}

impl Http {
    /// Listens, and serves on a thread of its own.
    ///
    /// # Errors
    /// The address is taken, or the system refuses.
    pub fn start(
        keys: &HttpKeys,
        tls: Option<Arc<ServerConfig>>,
        (side, access): (SideDoor, Access),
        health: &Arc<Health>,
    ) -> io::Result<Http> {
        let listener = listen::http(*keys.address.get_ref(), tls.is_none())?;
        let doors = Arc::new(Doors::new(side, access));
        let app = Arc::new(App::new(doors.clone(), health.clone()));
        let tls = Arc::new(RwLock::new(tls));
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(WAITING_THREADS)
            .thread_name("http")
            .on_thread_start(give_way)
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (connections_max, keys) = (keys.connections_max, tls.clone());
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            give_way();
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        tokio::spawn(serve::serve(listener, keys, connections_max, app));
                        let _ = stopped.await;
                    }
                    Err(error) => tracing::error!("no HTTP: {error}"),
                }
            });
            runtime.shutdown_timeout(LAST);
        })?;
        Ok(Http { thread, stop, doors, tls })
    }

    /// Takes over another table of grants, and other keys for connections from then on.
    pub fn reload(&self, access: Access, tls: Option<Arc<ServerConfig>>) {
        self.doors.reload(access);
        if let Some(new) = tls {
            *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(new);
        }
    }

    /// Ends it.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// The calling thread gives way to those that trade.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("HTTP does not give way: {error}");
    }
}
