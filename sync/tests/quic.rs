//! Two and more endpoints over real UDP sockets on loopback, and callers that mean no good.

use std::error::Error as StdError;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atoll_sync::frame::MAX_FRAME_BYTES;
use atoll_sync::key::{NodeKey, PublicKey};
use atoll_sync::quic::{
    Admission, Admit, CloseCode, Endpoint, Error, JoinAnswer, JoinHandler, JoinRequest, Knock,
    Limits, Link,
};
use atoll_sync::ticket::{Secret, Ticket};
use tokio::runtime::Runtime;

#[path = "quic/raw.rs"]
mod raw;

type Outcome = Result<(), Box<dyn StdError>>;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SOON: Duration = Duration::from_secs(5);

fn everyone_is(admission: Admission) -> Admit {
    Arc::new(move |_| admission)
}

fn only(peer: PublicKey) -> Admit {
    Arc::new(move |key| if *key == peer { Admission::Peer } else { Admission::Stranger })
}

fn no_join() -> JoinHandler {
    Arc::new(|_| Box::pin(async { Err("nobody joins here".to_owned()) }))
}

fn bind(admit: Admit) -> Result<Endpoint, Box<dyn StdError>> {
    Ok(Endpoint::bind(LOOPBACK, &NodeKey::generate()?, admit, no_join())?)
}

fn bind_with(admit: Admit, limits: Limits) -> Result<Endpoint, Box<dyn StdError>> {
    Ok(Endpoint::bind_with(LOOPBACK, &NodeKey::generate()?, admit, no_join(), limits)?)
}

async fn dial(from: &Endpoint, to: &Endpoint) -> Result<Link, Error> {
    from.dial(to.local_addr()?, &to.public_key(), SOON).await
}

async fn accept(endpoint: &Endpoint) -> Result<Link, Box<dyn StdError>> {
    Ok(tokio::time::timeout(SOON, endpoint.accept()).await?.ok_or("the endpoint is closed")?)
}

async fn link(from: &Endpoint, to: &Endpoint) -> Result<(Link, Link), Box<dyn StdError>> {
    let dialled = dial(from, to).await?;
    Ok((dialled, accept(to).await?))
}

/// Proves that an endpoint still serves.
async fn echo(from: &Endpoint, to: &Endpoint) -> Outcome {
    let (mut here, mut there) = link(from, to).await?;
    here.send.send(b"still there?").await?;
    assert_eq!(there.recv.recv().await?.as_deref(), Some(&b"still there?"[..]));
    there.send.send(b"yes").await?;
    assert_eq!(here.recv.recv().await?.as_deref(), Some(&b"yes"[..]));
    Ok(())
}

#[tokio::test]
async fn two_nodes_talk_and_know_each_other() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let (mut at_a, mut at_b) = link(&a, &b).await?;
    assert_eq!((at_a.peer, at_b.peer), (b.public_key(), a.public_key()));
    assert_eq!((at_a.remote, at_b.remote), (b.local_addr()?, a.local_addr()?));
    for number in 0..1000_u32 {
        at_a.send.send(&number.to_le_bytes()).await?;
    }
    at_b.send.send(b"").await?;
    for number in 0..1000_u32 {
        assert_eq!(at_b.recv.recv().await?.as_deref(), Some(&number.to_le_bytes()[..]));
    }
    assert_eq!(at_a.recv.recv().await?.as_deref(), Some(&b""[..]));
    echo(&b, &a).await
}

#[tokio::test]
async fn a_frame_of_eight_megabytes_passes_and_a_larger_one_is_refused_here() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let (mut at_a, mut at_b) = link(&a, &b).await?;
    let body: Vec<u8> = (0..MAX_FRAME_BYTES).map(|at| (at % 251) as u8).collect();
    let (sent, got) = tokio::join!(at_a.send.send(&body), at_b.recv.recv());
    sent?;
    assert!(got?.is_some_and(|got| got == body));
    let (sent, got) = tokio::join!(at_b.send.send(&body), at_a.recv.recv());
    sent?;
    assert!(got?.is_some_and(|got| got == body));
    let refused = at_a.send.send(&vec![0; MAX_FRAME_BYTES + 1]).await;
    assert!(matches!(refused, Err(Error::Frame(_))), "{refused:?}");
    at_a.send.send(b"after").await?;
    assert_eq!(at_b.recv.recv().await?.as_deref(), Some(&b"after"[..]));
    Ok(())
}

#[tokio::test]
async fn a_sender_waits_for_a_slow_peer_and_a_cancelled_send_cuts_nothing() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let (mut at_a, mut at_b) = link(&a, &b).await?;
    let body = vec![7; 1 << 20];
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(300), at_a.send.send(&body)).await.is_ok() {
        sent += 1;
        assert!(
            sent <= 28,
            "a stream's window there and a link's here are all that may be on the way"
        );
    }
    let reading = async {
        let mut got = 0;
        while let Some(frame) = at_b.recv.recv().await? {
            assert!(frame == body || frame == "last", "a frame of {} bytes", frame.len());
            got += 1;
        }
        Ok::<_, Error>(got)
    };
    let writing = async {
        at_a.send.send(b"last").await?;
        at_a.send.finish().await
    };
    let (got, wrote) = tokio::join!(reading, writing);
    wrote?;
    assert_eq!(got?, sent + 2);
    Ok(())
}

#[tokio::test]
async fn a_server_with_another_key_than_the_pinned_one_is_refused() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let expected = NodeKey::generate()?.public();
    let refused = a.dial(b.local_addr()?, &expected, SOON).await;
    let found = b.public_key();
    assert!(
        matches!(&refused, Err(Error::WrongKey { expected: e, found: f, .. }) if *e == expected && *f == found),
        "{refused:?}"
    );
    echo(&a, &b).await
}

#[tokio::test]
async fn a_stranger_is_refused_and_told_so() -> Outcome {
    let (friend, stranger) =
        (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let server = bind(only(friend.public_key()))?;
    let refused = dial(&stranger, &server).await;
    assert!(matches!(refused, Err(Error::Stranger)), "{refused:?}");
    echo(&friend, &server).await
}

#[tokio::test]
async fn a_revoked_key_is_closed_at_once_and_never_dialled() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Revoked))?);
    let refused = dial(&a, &b).await;
    assert!(matches!(refused, Err(Error::Revoked)), "{refused:?}");
    let refused = dial(&b, &a).await;
    assert!(matches!(refused, Err(Error::Revoked)), "{refused:?}");
    Ok(())
}

fn ticket_of(server: &Endpoint, secret: Secret) -> Result<Ticket, Error> {
    Ok(Ticket {
        addrs: vec![server.local_addr()?.to_string()],
        public_key: server.public_key(),
        secret,
        expires_ms: u64::MAX,
        name: "core".into(),
    })
}

fn me() -> JoinRequest {
    JoinRequest { name: "school 4".into(), addrs: vec!["192.0.2.4:4710".into()] }
}

/// Lets in who knows `secret`, and counts the knocks.
fn issuer(secret: Secret, knocks: Arc<AtomicUsize>) -> JoinHandler {
    Arc::new(move |knock: Knock| {
        knocks.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if knock.secret.hash() != secret.hash() {
                return Err("this ticket was used or never issued".to_owned());
            }
            let info = [&knock.key.0[..], knock.request.name.as_bytes()].concat();
            Ok(JoinAnswer { name: "core".into(), addrs: knock.request.addrs, info })
        })
    })
}

#[tokio::test]
async fn a_ticket_with_the_right_secret_lets_a_stranger_join() -> Outcome {
    let (secret, knocks) = (Secret::generate()?, Arc::default());
    let handler = issuer(secret, Arc::clone(&knocks));
    let key = NodeKey::generate()?;
    let server = Endpoint::bind(LOOPBACK, &key, everyone_is(Admission::Stranger), handler)?;
    let newcomer = bind(everyone_is(Admission::Stranger))?;

    let answer = newcomer.join(&ticket_of(&server, secret)?, &me(), SOON).await?;
    assert_eq!((answer.name.as_str(), answer.addrs), ("core", me().addrs));
    assert_eq!(answer.info, [&newcomer.public_key().0[..], b"school 4"].concat());

    let refused = newcomer.join(&ticket_of(&server, Secret::generate()?)?, &me(), SOON).await;
    assert!(
        matches!(&refused, Err(Error::JoinRefused(why)) if why.contains("used or never issued")),
        "{refused:?}"
    );
    assert_eq!(knocks.load(Ordering::SeqCst), 2);
    Ok(())
}

#[tokio::test]
async fn a_ticket_whose_first_address_is_somebody_elses_goes_on_to_the_next() -> Outcome {
    let (secret, knocks) = (Secret::generate()?, Arc::default());
    let key = NodeKey::generate()?;
    let handler = issuer(secret, Arc::clone(&knocks));
    let server = Endpoint::bind(LOOPBACK, &key, everyone_is(Admission::Stranger), handler)?;
    let heard = Arc::default();
    let other = Endpoint::bind(
        LOOPBACK,
        &NodeKey::generate()?,
        everyone_is(Admission::Stranger),
        issuer(secret, Arc::clone(&heard)),
    )?;
    let newcomer = bind(everyone_is(Admission::Stranger))?;
    let mut ticket = ticket_of(&server, secret)?;
    ticket.addrs.insert(0, other.local_addr()?.to_string());
    ticket.addrs.insert(0, "[::1]:9".into());
    newcomer.join(&ticket, &me(), SOON).await?;
    assert_eq!(knocks.load(Ordering::SeqCst), 1);
    assert_eq!(heard.load(Ordering::SeqCst), 0, "the secret went to the wrong node");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_lost_the_answer_may_show_its_ticket_again() -> Outcome {
    let (secret, knocks) = (Secret::generate()?, Arc::default());
    let key = NodeKey::generate()?;
    let handler = issuer(secret, Arc::clone(&knocks));
    let server = Endpoint::bind(LOOPBACK, &key, everyone_is(Admission::Peer), handler)?;
    let peer = bind(everyone_is(Admission::Peer))?;
    peer.join(&ticket_of(&server, secret)?, &me(), SOON).await?;
    echo(&peer, &server).await
}

#[tokio::test]
async fn garbage_datagrams_leave_the_endpoint_serving() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let (mut at_a, mut at_b) = link(&a, &b).await?;
    let socket = tokio::net::UdpSocket::bind(LOOPBACK).await?;
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..2000_usize {
        let mut datagram = vec![0; 1 + round * 7 % 1400];
        for byte in &mut datagram {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (noise >> 56) as u8;
        }
        // Every other one looks like the beginning of a handshake of QUIC version 1.
        if round % 2 == 0 {
            let begin = [0xC3, 0, 0, 0, 1, 8];
            let length = begin.len().min(datagram.len());
            datagram[..length].copy_from_slice(&begin[..length]);
        }
        socket.send_to(&datagram, b.local_addr()?).await?;
    }
    at_a.send.send(b"through the noise").await?;
    assert_eq!(at_b.recv.recv().await?.as_deref(), Some(&b"through the noise"[..]));
    echo(&a, &b).await
}

#[tokio::test]
async fn four_gigabytes_announced_close_that_link_only() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let caller = raw::Caller::new()?;
    let (connection, mut send, mut recv) = caller.greet(b.local_addr()?).await?;
    let mut at_b = accept(&b).await?;
    let mut welcome = [0; 5];
    recv.read_exact(&mut welcome).await?;
    assert_eq!(welcome, [1, 0, 0, 0, 0]);
    send.write_all(&[0xFF; 100]).await?;
    let refused = at_b.recv.recv().await;
    assert!(matches!(refused, Err(Error::Frame(_))), "{refused:?}");
    raw::assert_closed_with(&connection, CloseCode::PROTOCOL).await;
    echo(&a, &b).await
}

#[tokio::test]
async fn a_hello_of_garbage_or_too_long_is_refused() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let too_long = [&5000_u32.to_le_bytes()[..], &[0; 5000]].concat();
    for hello in [&[0xFF; 4][..], &[1, 0, 0, 0, 9], &[2, 0, 0, 0, 0, 0], &too_long] {
        let caller = raw::Caller::new()?;
        let connection = caller.connect(b.local_addr()?, b"atoll/1").await?;
        let (mut send, _recv) = connection.open_bi().await?;
        send.write_all(hello).await?;
        raw::assert_closed_with(&connection, CloseCode::PROTOCOL).await;
    }
    echo(&a, &b).await
}

#[tokio::test]
async fn a_caller_that_never_says_hello_is_closed_after_its_time() -> Outcome {
    let limits = Limits { hello_timeout: Duration::from_millis(300), ..Limits::default() };
    for admission in [Admission::Stranger, Admission::Peer] {
        let b = bind_with(everyone_is(admission), limits.clone())?;
        let caller = raw::Caller::new()?;
        let connection = caller.connect(b.local_addr()?, b"atoll/1").await?;
        raw::assert_closed_with(&connection, CloseCode::TIMEOUT).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_stranger_with_half_a_hello_is_closed_after_its_time() -> Outcome {
    let limits = Limits { hello_timeout: Duration::from_secs(2), ..Limits::default() };
    let b = bind_with(everyone_is(Admission::Stranger), limits)?;
    let caller = raw::Caller::new()?;
    let connection = caller.connect(b.local_addr()?, b"atoll/1").await?;
    // On a machine that is busy for so long, it is closed before that.
    let half = async {
        let (mut send, recv) = connection.open_bi().await.ok()?;
        send.write_all(&[&4096_u32.to_le_bytes()[..], &[0; 4095]].concat()).await.ok()?;
        Some((send, recv))
    };
    let _streams = half.await;
    raw::assert_closed_with(&connection, CloseCode::TIMEOUT).await;
    Ok(())
}

#[tokio::test]
async fn a_caller_that_speaks_another_protocol_is_refused() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    for alpn in [&b"h3"[..], b"atoll/2", b""] {
        let refused = raw::Caller::new()?.connect(b.local_addr()?, alpn).await;
        let text = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("120"), "{text}");
    }
    echo(&a, &b).await
}

#[tokio::test]
async fn dialling_what_speaks_another_protocol_says_so() -> Outcome {
    let a = bind(everyone_is(Admission::Peer))?;
    let other = raw::Server::new(b"h3")?;
    let refused = a.dial(other.local_addr()?, &other.public, SOON).await;
    assert!(matches!(refused, Err(Error::NotAtoll { .. })), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_on_both_sides() -> Outcome {
    let a = bind(everyone_is(Admission::Peer))?;
    let victim = raw::Caller::new()?;
    let server = bind(only(victim.public))?;
    let thief = raw::Caller::with_stolen_certificate_of(&victim)?;
    let connection = thief.connect(server.local_addr()?, b"atoll/1").await;
    // The caller's handshake ends before its signature is looked at: the refusal comes after it.
    if let Ok(connection) = connection {
        raw::assert_refused_by_tls(&connection).await;
    }
    let _open = victim.greet(server.local_addr()?).await?;
    assert_eq!(accept(&server).await?.peer, victim.public);

    let thief = raw::Server::with_stolen_certificate(b"atoll/1")?;
    let refused = a.dial(thief.local_addr()?, &thief.public, SOON).await;
    assert!(matches!(refused, Err(Error::Handshake(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn callers_without_an_ed25519_certificate_are_refused() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    for caller in [raw::Caller::without_certificate()?, raw::Caller::with_p256_certificate()?] {
        if let Ok(connection) = caller.connect(b.local_addr()?, b"atoll/1").await {
            raw::assert_refused_by_tls(&connection).await;
        }
    }
    echo(&a, &b).await
}

#[tokio::test]
async fn closing_wakes_both_receivers() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let (at_a, at_b) = link(&a, &b).await?;
    let code = CloseCode(CloseCode::FIRST_FREE.0 + 7);
    let (mut ours, mut theirs) = (at_a.recv, at_b.recv);
    let (sender, _keep) = (at_a.send, at_b.send);
    let close = async { sender.close(code, "going \u{7}home") };
    let (here, there, ()) = tokio::join!(ours.recv(), theirs.recv(), close);
    assert!(matches!(here, Err(Error::ClosedHere)), "{here:?}");
    assert!(
        matches!(&there, Err(Error::Closed { code: c, reason }) if *c == code && reason == "going home"),
        "{there:?}"
    );

    let (at_a, mut at_b) = link(&a, &b).await?;
    at_a.close(CloseCode::DONE, "");
    assert_eq!(at_b.recv.recv().await?, None);
    let (at_a, mut at_b) = link(&a, &b).await?;
    drop(at_a);
    assert_eq!(at_b.recv.recv().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_closed_endpoint_accepts_and_dials_no_more_and_its_peers_hear_of_it() -> Outcome {
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let (mut at_a, _at_b) = link(&a, &b).await?;
    b.close().await;
    let ended = at_a.recv.recv().await;
    assert!(matches!(ended, Err(Error::Closed { code: CloseCode::SHUTDOWN, .. })), "{ended:?}");
    assert!(b.accept().await.is_none());
    assert!(matches!(dial(&b, &a).await, Err(Error::ClosedHere)));
    Ok(())
}

#[tokio::test]
async fn an_address_where_nobody_answers_says_so_in_time() -> Outcome {
    let a = bind(everyone_is(Admission::Peer))?;
    let silent = std::net::UdpSocket::bind(LOOPBACK)?;
    let key = NodeKey::generate()?.public();
    let failed = a.dial(silent.local_addr()?, &key, Duration::from_millis(300)).await;
    assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
    let failed = a.dial("no port", &key, SOON).await;
    assert!(matches!(failed, Err(Error::Resolve { .. })), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn links_are_bounded_by_peer_and_in_all_and_are_given_back() -> Outcome {
    let limits = Limits { links: 3, links_per_peer: 2, ..Limits::default() };
    let server = bind_with(everyone_is(Admission::Peer), limits)?;
    let (a, b) = (bind(everyone_is(Admission::Peer))?, bind(everyone_is(Admission::Peer))?);
    let first = link(&a, &server).await?;
    let _second = link(&a, &server).await?;
    let refused = dial(&a, &server).await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    let _third = link(&b, &server).await?;
    let refused = dial(&b, &server).await;
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    drop(first);
    echo(&b, &server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_callers_at_once_than_handshakes_still_get_through() -> Outcome {
    let limits = Limits { handshakes: 4, links: 64, links_per_peer: 64, ..Limits::default() };
    let server = bind_with(everyone_is(Admission::Peer), limits)?;
    let caller = bind(everyone_is(Admission::Peer))?;
    let calls: Vec<_> = (0..24)
        .map(|_| {
            let (caller, server) = (caller.clone(), server.clone());
            tokio::spawn(async move { dial(&caller, &server).await })
        })
        .collect();
    let mut held = Vec::new();
    let mut through = 0;
    for call in calls {
        match call.await? {
            Ok(link) => {
                held.push((link, accept(&server).await?));
                through += 1;
            }
            Err(Error::Busy) => {}
            Err(error) => return Err(error.into()),
        }
    }
    assert!(through >= 4, "{through} of 24 got through");
    echo(&caller, &server).await
}

fn quick() -> Limits {
    Limits {
        keep_alive: Duration::from_millis(200),
        idle_timeout: Duration::from_secs(1),
        ..Limits::default()
    }
}

/// A node in a runtime of its own, so that it can be killed without a last word.
struct Mortal {
    runtime: Runtime,
    endpoint: Endpoint,
}

impl Mortal {
    fn start(addr: SocketAddr, key: &NodeKey, limits: Limits) -> Result<Self, Box<dyn StdError>> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let admit = everyone_is(Admission::Peer);
        let endpoint =
            runtime.block_on(async { Endpoint::bind_with(addr, key, admit, no_join(), limits) })?;
        Ok(Self { runtime, endpoint })
    }

    /// The tasks that send end first, so nothing leaves any more when the rest goes.
    fn kill(self, links: impl Sized) {
        self.runtime.shutdown_timeout(SOON);
        drop((links, self.endpoint));
    }
}

#[test]
fn a_killed_peer_is_noticed() -> Outcome {
    let survivor = Mortal::start(LOOPBACK, &NodeKey::generate()?, quick())?;
    let victim = Mortal::start(LOOPBACK, &NodeKey::generate()?, quick())?;
    let (mut here, there) =
        survivor.runtime.block_on(link(&survivor.endpoint, &victim.endpoint))?;
    victim.kill(there);
    let noticed = survivor.runtime.block_on(here.recv.recv());
    assert!(matches!(noticed, Err(Error::Silent)), "{noticed:?}");
    assert!(survivor.runtime.block_on(here.send.send(b"anybody?")).is_err());
    Ok(())
}

#[test]
fn a_peer_that_was_killed_and_started_again_is_noticed_before_the_silence() -> Outcome {
    let patient = Limits { idle_timeout: Duration::from_mins(1), ..quick() };
    let key = NodeKey::generate()?;
    let survivor = Mortal::start(LOOPBACK, &NodeKey::generate()?, patient.clone())?;
    let victim = Mortal::start(LOOPBACK, &key, patient.clone())?;
    let addr = victim.endpoint.local_addr()?;
    let (mut here, there) =
        survivor.runtime.block_on(link(&survivor.endpoint, &victim.endpoint))?;
    victim.kill(there);
    let again = Mortal::start(addr, &key, patient)?;
    let noticed = survivor
        .runtime
        .block_on(async { tokio::time::timeout(2 * SOON, here.recv.recv()).await })?;
    assert!(matches!(noticed, Err(Error::Restarted)), "{noticed:?}");
    survivor.runtime.block_on(echo(&survivor.endpoint, &again.endpoint))
}
