//! Links between nodes: QUIC with mutual TLS, each side known by its Ed25519 key and by nothing else.
//! The only place that imports quinn and rustls. Carries frames and lets new nodes join; never looks into a frame,
//! never decides who is a peer (`Admit` does) or whether a secret is good (`JoinHandler` does).
//!
//! One bidirectional stream a link. The dialling side opens it with a hello (a link, please; or: let me join),
//! and the answering side replies, so that a refusal always reaches the one who asked.

mod error;
mod gate;
mod hello;
mod link;
mod side;
mod tls;

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::SockRef;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::key::{NodeKey, PublicKey};
use crate::ticket::Ticket;

pub use error::{CloseCode, Error};
pub use hello::{Hello, JoinAnswer, JoinRequest, MAX_INFO_BYTES, Reply};
pub use link::{Link, LinkReceiver, LinkSender, ProcessId, Pulse};
pub use side::{SideStream, SideStreams, StopCode};

use gate::Gate;
use tls::Identity;

/// What both sides must speak, and the version of it.
pub const ALPN: &[u8] = b"atoll/1";

/// What may be on its way to one node before it reads. Enough for a fast LAN and for a slow satellite alike.
const WINDOW_BYTES: u32 = 8 << 20;
/// The same of all streams of a link, each way. Streams beside the link's own are bounded by what is asked for at a
/// time, so that there is always room for the link's own.
const LINK_WINDOW_BYTES: u32 = 20 << 20;
/// The same, before the other side is known to be a peer.
const STRANGER_WINDOW_BYTES: u32 = 16 << 10;
/// Of datagrams that the system holds for this process to take, and of those from it. Bursts on quick ways overflow what
/// systems give by default; more than this delays what comes beside a large file.
const SOCKET_BYTES: usize = 1 << 20;
/// Links that wait for [`Endpoint::accept`].
const READY_LINKS: usize = 16;
/// How long a closing endpoint waits for its last words to leave.
const CLOSING: Duration = Duration::from_secs(1);
/// TLS needs a name. Nobody looks at it: keys are pinned.
const SERVER_NAME: &str = "atoll";

/// Asked on every contact with the key that the other side proved to own. Must answer from memory, at once.
pub type Admit = Arc<dyn Fn(&PublicKey) -> Admission + Send + Sync>;

/// What a key may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Peer,
    /// May show a ticket, once, and nothing else.
    Stranger,
    /// A peer whose time is over. May show another ticket.
    Expired,
    /// A peer that may do nothing any more. May show another ticket.
    Withdrawn,
    /// Closed at once.
    Revoked,
}

/// Somebody with a ticket at the door. `key` is proved; everything else is a claim.
#[derive(Debug)]
pub struct Knock {
    pub key: PublicKey,
    pub remote: SocketAddr,
    pub secret: crate::ticket::Secret,
    pub request: JoinRequest,
}

pub type JoinFuture =
    std::pin::Pin<Box<dyn Future<Output = Result<JoinAnswer, String>> + Send + 'static>>;

/// Decides about a knock; an `Err` is told to the one who knocked. May be asked again by the same key with the same
/// secret, when the answer was lost on its way: then it should answer the same.
pub type JoinHandler = Arc<dyn Fn(Knock) -> JoinFuture + Send + Sync>;

/// What bounds the work that others can cause, and how soon silence is noticed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Contacts under way that are not links yet. From half of it on, callers must first prove their address.
    pub handshakes: usize,
    /// Strangers being heard at once.
    pub strangers: usize,
    /// Links accepted from others and not yet closed. Each can hold two windows of 20 MiB.
    pub links: usize,
    pub links_per_peer: usize,
    /// From the first packet to the hello.
    pub hello_timeout: Duration,
    /// What the join handler may take.
    pub join_timeout: Duration,
    pub keep_alive: Duration,
    pub idle_timeout: Duration,
    pub congestion: Congestion,
}

/// How much is put on the way while others use it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Congestion {
    /// Gives way when packets are lost.
    Cubic,
    /// Goes by what comes through, and how soon.
    #[default]
    Bbr,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 64,
            strangers: 16,
            links: 128,
            links_per_peer: 4,
            hello_timeout: Duration::from_secs(5),
            join_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            congestion: Congestion::default(),
        }
    }
}

/// One UDP socket that dials and answers. Clones share it; it closes when the last one is gone.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    socket: quinn::Endpoint,
    identity: Identity,
    transport: Arc<TransportConfig>,
    admit: Admit,
    ready: Mutex<mpsc::Receiver<Link>>,
    gate: JoinHandle<()>,
}

impl Endpoint {
    /// Must be called inside a tokio runtime.
    pub fn bind(
        addr: SocketAddr,
        key: &NodeKey,
        admit: Admit,
        join: JoinHandler,
    ) -> Result<Self, Error> {
        Self::bind_with(addr, key, admit, join, Limits::default())
    }

    /// As [`Endpoint::bind`], with other limits.
    pub fn bind_with(
        addr: SocketAddr,
        key: &NodeKey,
        admit: Admit,
        join: JoinHandler,
        limits: Limits,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(Error::setup)?;
        let identity = Identity::new(key)?;
        let server = server_config(&identity, &limits)?;
        let transport = Arc::new(transport(&limits, LINK_WINDOW_BYTES)?);
        let socket = UdpSocket::bind(addr).map_err(|source| Error::Bind { addr, source })?;
        widen(&socket);
        let socket = quinn::Endpoint::new(
            endpoint_config(key)?,
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(|source| Error::Bind { addr, source })?;
        let (sender, ready) = mpsc::channel(READY_LINKS);
        let gate = Arc::new(Gate::new(admit.clone(), join, limits, sender));
        let gate = runtime.spawn(gate.run(socket.clone()));
        let ready = Mutex::new(ready);
        Ok(Self(Arc::new(Shared { socket, identity, transport, admit, ready, gate })))
    }

    /// With the port that the system chose, if 0 was asked for.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.0.socket.local_addr().map_err(Error::setup)
    }

    pub fn public_key(&self) -> PublicKey {
        self.0.identity.public
    }

    /// A link to the owner of `expected`, and to nobody else, at `addr` (`host:port`). All addresses that the name
    /// has are tried within `timeout`.
    pub async fn dial(
        &self,
        addr: impl fmt::Display,
        expected: &PublicKey,
        timeout: Duration,
    ) -> Result<Link, Error> {
        self.dial_any(&[addr.to_string()], expected, timeout).await
    }

    /// As [`Endpoint::dial`], at one address after the other.
    pub async fn dial_any(
        &self,
        addrs: &[String],
        expected: &PublicKey,
        timeout: Duration,
    ) -> Result<Link, Error> {
        if (self.0.admit)(expected) == Admission::Revoked {
            return Err(Error::Revoked);
        }
        self.try_each(addrs, expected, timeout, async |mut link: Link| {
            link.send.send(&Hello::Link.encode()?).await?;
            match Reply::decode(link.recv.recv().await?)? {
                Reply::Welcome => {
                    link.recv.allow(crate::frame::MAX_FRAME_BYTES);
                    Ok(link)
                }
                _ => Err(Error::Protocol("it answered a hello with something else".into())),
            }
        })
        .await
    }

    /// Shows the ticket to its issuer at each of its addresses in turn. The secret is sent only after the issuer has
    /// proved its key. The caller minds whether the ticket has expired; the issuer decides.
    pub async fn join(
        &self,
        ticket: &Ticket,
        me: &JoinRequest,
        timeout: Duration,
    ) -> Result<JoinAnswer, Error> {
        me.check()?;
        let hello = Hello::Join { secret: ticket.secret, request: me.clone() }.encode()?;
        self.try_each(&ticket.addrs, &ticket.public_key, timeout, async |mut link: Link| {
            link.recv.allow(hello::MAX_REPLY_BYTES);
            link.send.send(&hello).await?;
            let reply = Reply::decode(link.recv.recv().await?)?;
            link.close(CloseCode::DONE, "");
            match reply {
                Reply::Joined(answer) => Ok(answer),
                Reply::Refused(reason) => Err(Error::JoinRefused(error::tame(reason.as_bytes()))),
                Reply::Welcome => {
                    Err(Error::Protocol("it answered a ticket with something else".into()))
                }
            }
        })
        .await
    }

    /// The next link that a peer opened; none once the endpoint is closed.
    pub async fn accept(&self) -> Option<Link> {
        self.0.ready.lock().await.recv().await
    }

    /// Ends all links and waits a moment, so that the peers hear of it.
    pub async fn close(&self) {
        self.0.socket.close(CloseCode::SHUTDOWN.into(), b"the node is stopping");
        // Who has not heard by then will notice the silence.
        let _ = tokio::time::timeout(CLOSING, self.0.socket.wait_idle()).await;
    }

    /// Connects to one address after the other, each with its share of the time that is left, until `talk` succeeds
    /// or the right node refuses.
    async fn try_each<T>(
        &self,
        addrs: &[String],
        expected: &PublicKey,
        timeout: Duration,
        talk: impl AsyncFn(Link) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + timeout;
        let (found, mut failure) = resolve(addrs, deadline).await;
        for (at, addr) in found.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(found.len() - at).unwrap_or(1);
            let attempt = async { talk(self.connect(*addr, expected).await?).await };
            let outcome = tokio::time::timeout(share, attempt)
                .await
                .unwrap_or_else(|_| Err(Error::Unreachable { addr: addr.to_string() }));
            match outcome {
                Err(error) if error.may_differ_elsewhere() => failure = Some(error.or(failure)),
                settled => return settled,
            }
        }
        Err(failure.unwrap_or(Error::NoAddress))
    }

    async fn connect(&self, addr: SocketAddr, expected: &PublicKey) -> Result<Link, Error> {
        let (config, seen) = self.0.identity.dialling(*expected)?;
        let mut config = quinn::ClientConfig::new(config);
        config.transport_config(self.0.transport.clone());
        let connecting = self
            .0
            .socket
            .connect_with(config, addr, SERVER_NAME)
            .map_err(|error| Error::cannot_dial(addr, &error))?;
        let connection = connecting.await.map_err(|error| match seen.get() {
            Some(found) if found != expected => {
                Error::WrongKey { addr, expected: *expected, found: *found }
            }
            _ => Error::from_dialling(addr, error),
        })?;
        let (send, recv) = connection.open_bi().await?;
        Ok(Link::new(*expected, &connection, send, recv, None))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.public_key())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.gate.abort();
        self.socket.close(CloseCode::SHUTDOWN.into(), b"the node is stopping");
    }
}

/// All addresses of all names, at most a few, and what went wrong with the names that gave none.
async fn resolve(addrs: &[String], deadline: Instant) -> (Vec<SocketAddr>, Option<Error>) {
    let (mut found, mut failure) = (Vec::new(), None);
    for addr in addrs {
        match timeout_at(deadline, tokio::net::lookup_host(addr)).await {
            Ok(Ok(answers)) => found.extend(answers.take(crate::ticket::MAX_ADDRS)),
            Ok(Err(source)) => failure = Some(Error::Resolve { addr: addr.clone(), source }),
            Err(_) => failure = Some(Error::Unreachable { addr: addr.clone() }),
        }
    }
    (found, failure)
}

/// The secrets behind connection ids and resets come from the key: a node that was killed and started again can tell
/// its peers at once that their links are gone.
fn endpoint_config(key: &NodeKey) -> Result<quinn::EndpointConfig, Error> {
    let reset = key.derive_secret("atoll 2025 quic stateless reset")?;
    let ids = key.derive_secret("atoll 2025 quic connection ids")?;
    let ids = ids.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mut config =
        quinn::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    Ok(config)
}

fn server_config(identity: &Identity, limits: &Limits) -> Result<quinn::ServerConfig, Error> {
    let mut config = quinn::ServerConfig::with_crypto(identity.answering()?);
    let mut transport = transport(limits, STRANGER_WINDOW_BYTES)?;
    transport.max_concurrent_bidi_streams(1_u8.into());
    config.transport_config(Arc::new(transport));
    // What waits before the gate has looked at it.
    config.max_incoming(2 * limits.handshakes);
    config.incoming_buffer_size(u64::from(STRANGER_WINDOW_BYTES));
    config.incoming_buffer_size_total(2 << 20);
    Ok(config)
}

/// Asks for room for what comes while this process is at something else. The system gives as much of it as it allows.
fn widen(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    let received = socket.set_recv_buffer_size(SOCKET_BYTES);
    if let Err(error) = received.and_then(|()| socket.set_send_buffer_size(SOCKET_BYTES)) {
        tracing::debug!(%error, "the buffers of the socket stay as small as they are");
    }
}

fn transport(limits: &Limits, window_bytes: u32) -> Result<TransportConfig, Error> {
    let mut config = TransportConfig::default();
    config.max_concurrent_bidi_streams(0_u8.into());
    config.max_concurrent_uni_streams(0_u8.into());
    config.datagram_receive_buffer_size(None);
    config.stream_receive_window(WINDOW_BYTES.into());
    config.receive_window(window_bytes.into());
    config.send_window(u64::from(LINK_WINDOW_BYTES));
    match limits.congestion {
        Congestion::Cubic => {
            config.congestion_controller_factory(Arc::new(CubicConfig::default()));
        }
        Congestion::Bbr => {
            config.congestion_controller_factory(Arc::new(BbrConfig::default()));
        }
    }
    config.keep_alive_interval(Some(limits.keep_alive));
    config.max_idle_timeout(Some(limits.idle_timeout.try_into().map_err(Error::setup)?));
    Ok(config)
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        code.0.into()
    }
}
