//! Streams beside the link's own, on the same connection: each carries one request and its answer, and what comes in
//! one of them holds up nothing in the others. Their limits stand in the transport; what is said, `blob` knows.

use bytes::Bytes;
use quinn::{Connection, ReadError, ReadExactError, RecvStream, SendStream, StoppedError};

use super::error::{CloseCode, Error};
use crate::frame::{HEADER_BYTES, header};

/// Streams that a peer may have open at once, the link's own among them.
pub(super) const MAX_STREAMS: u8 = 32;

/// Opens and answers them. Does not keep the connection: it ends with its link.
#[derive(Clone, Debug)]
pub struct SideStreams {
    connection: Connection,
}

/// Why a side wants no more of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopCode(pub u32);

impl StopCode {
    /// What came is not what it says it is.
    pub const FALSE: Self = Self(1);
    /// The request cannot be read.
    pub const UNREADABLE: Self = Self(2);
    /// This side cannot go on; another try may do.
    pub const FAILED: Self = Self(3);
}

#[derive(Debug)]
pub struct SideStream {
    send: SendStream,
    recv: RecvStream,
}

impl SideStreams {
    pub(super) fn new(connection: &Connection) -> Self {
        connection.set_max_concurrent_bi_streams(MAX_STREAMS.into());
        Self { connection: connection.clone() }
    }

    /// Waits while the peer allows no more. A release that knows no such streams never does.
    pub async fn open(&self) -> Result<SideStream, Error> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok(SideStream { send, recv })
    }

    /// Ends the link, if it has not ended.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// The next that the peer opened.
    pub async fn accept(&self) -> Result<SideStream, Error> {
        let (send, recv) = self.connection.accept_bi().await?;
        Ok(SideStream { send, recv })
    }
}

impl SideStream {
    /// What is of higher priority goes out first; the link's own stream has 0.
    pub fn set_priority(&self, priority: i32) {
        // An error says that it is closed, which whoever writes finds out.
        let _ = self.send.set_priority(priority);
    }

    pub async fn send_frame(&mut self, body: &[u8]) -> Result<(), Error> {
        let header = header(body)?;
        let mut parts = [Bytes::copy_from_slice(&header), Bytes::copy_from_slice(body)];
        Ok(self.send.write_all_chunks(&mut parts).await?)
    }

    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        Ok(self.send.write_chunk(bytes.into()).await?)
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        // An error says that it was finished already.
        let _ = self.send.finish();
    }

    /// Waits until the peer has all that was sent; says so if it wanted no more of it.
    pub async fn delivered(&mut self) -> Result<Option<StopCode>, Error> {
        match self.send.stopped().await {
            Ok(code) => {
                Ok(code.map(|code| StopCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))))
            }
            Err(StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(StoppedError::ZeroRttRejected) => Err(Error::ClosedHere),
        }
    }

    /// One frame of at most `limit_bytes`, which must be few: memory is taken as announced.
    pub async fn recv_frame(&mut self, limit_bytes: usize) -> Result<Vec<u8>, Error> {
        let mut header = [0; HEADER_BYTES];
        self.recv.read_exact(&mut header).await.map_err(cut)?;
        let announced = u32::from_le_bytes(header) as usize;
        if announced > limit_bytes {
            return Err(Error::Protocol(format!(
                "a frame of {announced} bytes, where {limit_bytes} are allowed"
            )));
        }
        let mut body = vec![0; announced];
        self.recv.read_exact(&mut body).await.map_err(cut)?;
        Ok(body)
    }

    /// What has come as it came, not copied: fills the first of these and says how many; none at the end.
    pub async fn recv_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, Error> {
        self.recv.read_chunks(chunks).await.map_err(lost)
    }

    /// Takes nothing more.
    pub fn stop(&mut self, code: StopCode) {
        // An error says that it has ended.
        let _ = self.recv.stop(code.0.into());
    }

    /// Sends nothing more; what was sent and has not arrived may be lost.
    pub fn reset(&mut self, code: StopCode) {
        let _ = self.send.reset(code.0.into());
    }
}

fn cut(error: ReadExactError) -> Error {
    match error {
        ReadExactError::FinishedEarly(_) => Error::Protocol("an answer ended too early".to_owned()),
        ReadExactError::ReadError(error) => lost(error),
    }
}

fn lost(error: ReadError) -> Error {
    match error {
        ReadError::Reset(_) => Error::Protocol("it gave up its answer".to_owned()),
        error => error.into(),
    }
}
