//! Connections and requests: who calls, how much at once, and what is answered.

use super::doors::{Doors, Shown};
use super::problem::Problem;
use super::repeat::Repeats;
use super::route::{Input, Route};
use super::{act, experiments, history, metrics, openapi, page, read, swarms};
use crate::gateway::tls;
use crate::health::Health;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Bytes of a request's body at most.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a peer may take for a handshake, for a request's head, and for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at once at most.
const REQUESTS_MAX: usize = 128;
/// How long nothing is accepted after an accept failed: descriptors come back with time.
const PAUSE: Duration = Duration::from_millis(100);
/// How often idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// What requests need.
pub struct App {
    /// The callers' sessions.
    pub doors: Arc<Doors>,
    /// The daemon's numbers.
    pub health: Arc<Health>,
    /// What was answered to requests that may come again.
    pub repeats: Repeats,
    /// What this server has done.
    pub counts: metrics::Counts,
    places: Semaphore,
}

impl App {
    /// Nobody has called yet.
    pub fn new(doors: Arc<Doors>, health: Arc<Health>) -> App {
        let places = Semaphore::new(REQUESTS_MAX);
        let (repeats, counts) = (Repeats::default(), metrics::Counts::default());
        App { doors, health, repeats, counts, places }
    }
}

/// Names in the certificate that a connection's peer showed.
#[derive(Clone, Default)]
struct Names(Arc<Vec<String>>);

/// Every path there is.
pub fn router(app: Arc<App>) -> Router {
    let groups =
        [read::routes(), swarms::routes(), experiments::routes(), history::routes(), act::routes()];
    let routes: Vec<Route> = groups.into_iter().flatten().collect();
    let document: Arc<str> = openapi::document(&routes).to_string().into();
    let mut router = Router::new()
        .route(
            "/healthz",
            get(|| async { json_response(StatusCode::OK, &json!({ "alive": true })) }),
        )
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::serve))
        .route("/grafana.json", get(|| async { json_text(metrics::GRAFANA) }))
        .route("/openapi.json", get(move || async move { json_text(&document) }))
        .merge(page::routes());
    for route in routes {
        let filter =
            if route.method == Method::GET { MethodFilter::GET } else { MethodFilter::POST };
        let (path, route) = (route.path, Arc::new(route));
        let handler = move |State(app): State<Arc<App>>,
                            Extension(names): Extension<Names>,
                            request| async move {
            answer(&app, &route, &names, request).await
        };
        router = router.route(path, on(filter, handler));
    }
    let missing = || async { Problem::absent("no such path; see /openapi.json").into_response() };
    let wrong = || async {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Problem::new(status, "this path has another method; see /openapi.json").into_response()
    };
    router.fallback(missing).method_not_allowed_fallback(wrong).with_state(app)
}

/// Who calls, where that is asked outside of the list of endpoints.
pub fn caller(request: &Request) -> Result<Shown, Problem> {
    let names = request.extensions().get::<Names>().cloned().unwrap_or_default();
    Shown::by(request.headers(), &names.0)
}

async fn answer(app: &Arc<App>, route: &Arc<Route>, names: &Names, request: Request) -> Response {
    let done = asked(app, route, names, request).await;
    let response = match done {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(problem) => problem.into_response(),
    };
    app.counts.answered(response.status());
    response
}

async fn asked(
    app: &Arc<App>,
    route: &Arc<Route>,
    names: &Names,
    request: Request,
) -> Result<Value, Problem> {
    let _place = app
        .places
        .try_acquire()
        .map_err(|_| Problem::busy(format!("{REQUESTS_MAX} requests are being served")))?;
    let shown = Shown::by(request.headers(), &names.0)?;
    let (head, body) = request.into_parts();
    if route.method == Method::GET {
        let job = (route.make)(&Input { uri: &head.uri, body: &[] })?;
        return app.doors.run(shown, route.slow, job).await;
    }
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "the body is JSON: Content-Type: application/json"));
    }
    let read = timeout(PATIENCE, to_bytes(body, BODY_BYTES_MAX)).await;
    let body = match read {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let why = format!("a body is whole and has at most {BODY_BYTES_MAX} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Err(_) => {
            let why = format!("the body did not come within {} s", PATIENCE.as_secs());
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, why));
        }
    };
    let job = (route.make)(&Input { uri: &head.uri, body: &body })?;
    let Some(key) = head.headers.get("idempotency-key") else {
        return app.doors.run(shown, route.slow, job).await;
    };
    let ticket = app.repeats.begin(&shown, key.as_bytes(), route.path, &body)?;
    match ticket {
        Ok(ticket) => {
            let done = app.doors.run(shown, route.slow, job).await;
            ticket.end(&done);
            done
        }
        Err(before) => before,
    }
}

/// Whether requests are served: the state is back, the journal takes what is written, nobody stops.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let why = match (app.health.stopping(), app.health.accepting()) {
        (true, _) => "the daemon is stopping",
        (_, false) => "the journal has stopped; see hvctl status",
        _ => return json_response(StatusCode::OK, &json!({ "ready": true })),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    (status, json_text(&value.to_string())).into_response()
}

fn json_text(text: &str) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The keys that connections are made with, if they are encrypted.
pub type Keys = Arc<RwLock<Option<Arc<ServerConfig>>>>;

/// Accepts connections for ever, so many at once.
pub async fn serve(listener: TcpListener, keys: Keys, connections_max: usize, app: Arc<App>) {
    let router = router(app.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            app.doors.sweep();
        }
    });
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        // Who comes later waits in the listener's queue.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept over HTTP: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let keys = keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let router = router.clone();
        tokio::spawn(async move {
            connection(stream, keys, router).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, keys: Option<Arc<ServerConfig>>, router: Router) {
    let _ = stream.set_nodelay(true);
    let Some(keys) = keys else { return speak(stream, Names::default(), router).await };
    match timeout(PATIENCE, TlsAcceptor::from(keys).accept(stream)).await {
        Ok(Ok(stream)) => {
            let names = tls::names(stream.get_ref().1.peer_certificates());
            speak(stream, Names(names.into()), router).await;
        }
        Ok(Err(error)) => tracing::debug!("TLS refused over HTTP: {error}"),
        Err(_) => {}
    }
}

async fn speak<S>(stream: S, names: Names, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = TowerToHyperService::new(router.layer(Extension(names)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BODY_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection over HTTP ended: {error}");
    }
}
