//! The server: connections, their limits and their end. Compression and CORS stand around the dispatcher and
//! cost nothing to a request that asks for neither.

use crate::dispatch::App;
use crate::guests::{Guest, Guests};
use crate::options::Options;
use crate::route::Route;
use crate::stall::Patient;
use atoll_node::Node;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, LINK, LOCATION, ORIGIN, RETRY_AFTER,
};
use axum::http::{HeaderName, HeaderValue, Request, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// How long a connection may take over the head of a request, and stay idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may find nobody who takes a byte of it.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_HEADERS: usize = 100;
const MAX_HEAD_BYTES: usize = 64 << 10;
/// What is still in work when the server stops gets this long.
const GRACE: Duration = Duration::from_secs(10);
const MIN_COMPRESSED_BYTES: u16 = 1_024;

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// All of the HTTP face as one service.
#[derive(Clone)]
pub struct Face {
    app: Arc<App>,
    /// For requests with `Origin` or `Accept-Encoding`.
    dressed: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
}

impl Face {
    pub fn new(node: Arc<Node>, options: Options) -> Self {
        Self::over(node, options, crate::all_routes())
    }

    /// Over other routes than the node's own.
    pub fn over(node: Arc<Node>, options: Options, routes: Vec<Route>) -> Self {
        let app = Arc::new(App::new(node, options, routes));
        let inner = cors(&app.options.cors_origins).layer(Plain(app.clone()));
        let fit = SizeAbove::new(MIN_COMPRESSED_BYTES)
            .and(NotForContentType::SSE)
            .and(NotForContentType::const_new(crate::download::ARCHIVE))
            .and(NotForContentType::IMAGES);
        let compression =
            CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(fit);
        let dressed =
            compression.layer(inner).map_response(|response| weaken(response.map(Body::new)));
        Self { app, dressed: BoxCloneSyncService::new(dressed) }
    }

    /// Answers one request.
    pub fn answer(&self, mut request: Request<Body>, peer: Option<IpAddr>) -> Answering {
        let headers = request.headers();
        if !headers.contains_key(ACCEPT_ENCODING) && !headers.contains_key(ORIGIN) {
            let answer = self.app.clone().answer(request, peer);
            return Box::pin(async move { Ok(answer.await) });
        }
        request.extensions_mut().insert(Peer(peer));
        Box::pin(self.dressed.clone().oneshot(request))
    }
}

impl Service<Request<Body>> for Face {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        self.answer(request, peer)
    }
}

#[derive(Clone, Copy)]
struct Peer(Option<IpAddr>);

/// The dispatcher, as a service for the layers.
#[derive(Clone)]
struct Plain(Arc<App>);

impl Service<Request<Body>> for Plain {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let peer = request.extensions_mut().remove::<Peer>().and_then(|peer| peer.0);
        let answer = self.0.clone().answer(request, peer);
        Box::pin(async move { Ok(answer.await) })
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let exposed = ["x-request-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
    let exposed = exposed.map(HeaderName::from_static);
    let listed = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(listed)
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(Any)
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers(
            [ETAG, LINK, LOCATION, RETRY_AFTER].into_iter().chain(exposed).collect::<Vec<_>>(),
        )
        .max_age(Duration::from_secs(3_600))
}

/// A compressed answer is the same to the reader, not to the byte: its ETag is weak.
fn weaken(mut response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
    let weak = tag.filter(|tag| !tag.starts_with("W/")).map(|tag| format!("W/{tag}"));
    if let Some(weak) = weak.and_then(|weak| HeaderValue::from_str(&weak).ok()) {
        response.headers_mut().insert(ETAG, weak);
    }
    response
}

/// Serves until `stop` is done; then lets what is in work end, for some seconds.
pub async fn serve(listener: TcpListener, face: Face, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(face.app.options.max_connections));
    let guests = Guests::new(face.app.options.max_connections_a_peer);
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places, &guests) => accepted,
            () = &mut stop => break,
        };
        if let Some((stream, peer, place)) = accepted {
            let (face, stopped) = (face.clone(), stopped.clone());
            tokio::spawn(async move {
                connection(stream, peer, face, stopped).await;
                drop(place);
            });
        }
    }
    drop((listener, stopped));
    face.app.stopping.send_replace(true);
    stopping.send_replace(true);
    if tokio::time::timeout(GRACE, stopping.closed()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
}

/// What a connection takes up while it lives.
struct Place {
    _place: OwnedSemaphorePermit,
    _guest: Guest,
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    guests: &Arc<Guests>,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            let Some(guest) = guests.enter(peer.ip()) else {
                tracing::debug!(%peer, "an address has too many connections: one more is closed");
                return None;
            };
            let _ = stream.set_nodelay(true);
            Some((stream, peer, Place { _place: place, _guest: guest }))
        }
        Err(error) => {
            // Most often there are no file descriptors left: some come free.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    face: Face,
    mut stopped: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        face.answer(request.map(Body::new), Some(peer.ip()))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, STALL_TIMEOUT)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}
