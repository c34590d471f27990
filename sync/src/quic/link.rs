//! A link: frames to and from one peer. Both halves can be given to different tasks, and both may be cancelled while
//! they wait without losing their place in the stream. The link closes when both are gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};

use super::error::{CloseCode, Error};
use super::gate::Slot;
use super::hello::MAX_HELLO_BYTES;
use super::side::SideStreams;
use crate::frame::{self, Decoder};
use crate::key::PublicKey;

/// What is taken from the stream at once.
const READ_BYTES: usize = 64 << 10;

/// One run of a node: its key says who it is, this says since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessId(pub(super) [u8; 32]);

#[derive(Debug)]
pub struct Link {
    /// The key that the other side has proved to own.
    pub peer: PublicKey,
    pub process: ProcessId,
    pub remote: SocketAddr,
    pub send: LinkSender,
    pub recv: LinkReceiver,
}

#[derive(Debug)]
pub struct LinkSender {
    stream: SendStream,
    /// The rest of a frame whose `send` was cancelled on the way.
    unsent: [Bytes; 2],
    sent_bytes: u64,
    connection: Connection,
    _slot: Option<Slot>,
}

#[derive(Debug)]
pub struct LinkReceiver {
    stream: RecvStream,
    decoder: Decoder,
    received_bytes: u64,
    connection: Connection,
    _slot: Option<Slot>,
}

impl Link {
    /// Frames are small until [`LinkReceiver::allow`] lets them be larger.
    pub(super) fn new(
        peer: PublicKey,
        connection: &Connection,
        send: SendStream,
        recv: RecvStream,
        slot: Option<Slot>,
    ) -> Self {
        Self {
            peer,
            process: super::tls::process_of(connection),
            remote: connection.remote_address(),
            send: LinkSender {
                stream: send,
                unsent: [Bytes::new(), Bytes::new()],
                sent_bytes: 0,
                connection: connection.clone(),
                _slot: slot.clone(),
            },
            recv: LinkReceiver {
                stream: recv,
                decoder: Decoder::new(MAX_HELLO_BYTES),
                received_bytes: 0,
                connection: connection.clone(),
                _slot: slot,
            },
        }
    }

    /// Lets the peer open streams beside the link's own, and opens them. Both ends of a link should call it.
    pub fn side_streams(&self) -> SideStreams {
        SideStreams::new(&self.send.connection)
    }

    /// Ends the link both ways at once; what was sent and has not arrived may be lost. See [`LinkSender::finish`].
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.send.close(code, reason);
    }
}

/// Tells whether the other end of a link lives, without a word in its stream.
#[derive(Clone, Debug)]
pub struct Pulse(Connection, Arc<AtomicU32>);

/// Packets of a process that has just ended may still be on their way.
const STRAY: Duration = Duration::from_millis(750);
const LOOK: Duration = Duration::from_millis(20);
/// Questions that are asked of one link; beyond them its own signs of life have to do.
const MAX_QUESTIONS: u32 = 6;

impl Pulse {
    /// Asks the other end, and waits for any word of it. At once if it says that there is no such link, or the link is
    /// closed.
    pub async fn beats(&self, within: Duration) -> bool {
        let listen = async {
            tokio::time::sleep(STRAY).await;
            let before = self.heard();
            self.ask();
            while self.heard() == before {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            _ = self.0.closed() => false,
            heard = tokio::time::timeout(within, listen) => {
                heard.is_ok() && self.0.close_reason().is_none()
            }
        }
    }

    fn heard(&self) -> u64 {
        self.0.stats().udp_rx.datagrams
    }

    /// Lets the other side open more streams, which no node does: it has to acknowledge that it may. A number is told
    /// only if it has grown by an eighth.
    fn ask(&self) {
        let asked = self.1.fetch_add(1, Ordering::Relaxed);
        if asked < MAX_QUESTIONS {
            self.0.set_max_concurrent_uni_streams((1_u32 << asked).into());
        }
    }
}

impl LinkSender {
    /// To look after the other end from elsewhere.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.connection.clone(), Arc::default())
    }

    /// Sends one frame, and waits while the peer does not keep up. If it is cancelled while it waits, the frame
    /// goes out with the next one, or with [`LinkSender::finish`]; it is never cut.
    pub async fn send(&mut self, body: &[u8]) -> Result<(), Error> {
        let header = frame::header(body)?;
        self.flush().await?;
        self.unsent = [Bytes::copy_from_slice(&header), Bytes::copy_from_slice(body)];
        self.sent_bytes += (header.len() + body.len()) as u64;
        self.flush().await
    }

    /// Says that nothing more will come, and waits until the peer's machine has all that was sent.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.flush().await?;
        // An error says that it was finished already.
        let _ = self.stream.finish();
        match self.stream.stopped().await {
            Ok(_) => Ok(()),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(Error::ClosedHere),
        }
    }

    /// As [`Link::close`]; wakes the receiver too.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// What went into the link's stream, from its first byte on.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The latest estimate of the time to the peer and back.
    pub fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    async fn flush(&mut self) -> Result<(), Error> {
        while let Some(first) = self.unsent.iter().position(|part| !part.is_empty()) {
            self.stream.write_chunks(&mut self.unsent[first..]).await?;
        }
        Ok(())
    }
}

impl LinkReceiver {
    /// The next frame; none when the peer has ended the link in order. After an error the link is dead.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.close(CloseCode::PROTOCOL, "a frame is too long");
                    return Err(error.into());
                }
            }
            match self.stream.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => {
                    self.received_bytes += chunk.bytes.len() as u64;
                    self.decoder.push(&chunk.bytes);
                }
                Ok(None) => return self.ended(),
                Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close)))
                    if close.error_code == CloseCode::DONE.into() =>
                {
                    return self.ended();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What came out of the link's stream, from its first byte on.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// As [`Link::close`]; wakes the sender too.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// Lets the peer's frames be this large from now on.
    pub(super) fn allow(&mut self, limit_bytes: usize) {
        self.decoder.set_limit(limit_bytes);
    }

    fn ended(&self) -> Result<Option<Bytes>, Error> {
        self.decoder.finish()?;
        Ok(None)
    }
}
