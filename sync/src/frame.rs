//! Frames: a length (u32, little endian), then that many bytes. How messages stand in a stream of bytes.
//! Knows no socket. Never takes memory for what was announced, only for what came.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The most that one frame may hold, without its length.
pub const MAX_FRAME_BYTES: usize = 8 << 20;
pub const HEADER_BYTES: usize = 4;

/// The length to put before `body`.
pub fn header(body: &[u8]) -> Result<[u8; HEADER_BYTES], FrameError> {
    match u32::try_from(body.len()) {
        Ok(length) if body.len() <= MAX_FRAME_BYTES => Ok(length.to_le_bytes()),
        _ => Err(FrameError::TooLong { announced: body.len(), limit: MAX_FRAME_BYTES }),
    }
}

/// `body` with its length before it.
pub fn encode(body: &[u8]) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len().min(MAX_FRAME_BYTES));
    frame.extend_from_slice(&header(body)?);
    frame.extend_from_slice(body);
    Ok(frame.freeze())
}

/// Cuts frames out of bytes that come in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    arrived: BytesMut,
    limit_bytes: usize,
}

impl Decoder {
    /// `limit_bytes` is what one frame may hold, at most [`MAX_FRAME_BYTES`].
    pub fn new(limit_bytes: usize) -> Self {
        Self { arrived: BytesMut::new(), limit_bytes: limit_bytes.min(MAX_FRAME_BYTES) }
    }

    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes.min(MAX_FRAME_BYTES);
    }

    pub fn push(&mut self, piece: &[u8]) {
        self.arrived.extend_from_slice(piece);
    }

    /// The next whole frame, or none until more has been pushed. After an error the stream is lost:
    /// nobody knows where the next frame would begin.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.announced() else { return Ok(None) };
        if length > self.limit_bytes {
            return Err(FrameError::TooLong { announced: length, limit: self.limit_bytes });
        }
        if self.arrived.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.arrived.advance(HEADER_BYTES);
        Ok(Some(self.arrived.split_to(length).freeze()))
    }

    /// To be called where the stream ends: it must not end inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.arrived.is_empty() {
            return Ok(());
        }
        Err(FrameError::Cut { arrived: self.arrived.len() })
    }

    fn announced(&self) -> Option<usize> {
        let header = self.arrived.first_chunk::<HEADER_BYTES>()?;
        Some(u32::from_le_bytes(*header) as usize)
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a frame of {announced} bytes, where {limit} are allowed: send less at once")]
    TooLong { announced: usize, limit: usize },
    #[error("the stream ended inside a frame, {arrived} bytes after its beginning")]
    Cut { arrived: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_frames() -> Result<Vec<u8>, FrameError> {
        Ok([encode(b"low")?, encode(b"")?, encode(&[9; 300])?].concat())
    }

    fn all_of(decoder: &mut Decoder) -> Result<Vec<Bytes>, FrameError> {
        std::iter::from_fn(|| decoder.next_frame().transpose()).collect()
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() -> Result<(), FrameError> {
        let bytes = three_frames()?;
        for size in [1, 2, 3, 5, 7, bytes.len()] {
            let mut decoder = Decoder::new(MAX_FRAME_BYTES);
            let mut frames = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                frames.extend(all_of(&mut decoder)?);
            }
            decoder.finish()?;
            assert_eq!(frames, [&b"low"[..], b"", &[9; 300]], "in pieces of {size}");
        }
        Ok(())
    }

    #[test]
    fn a_cut_frame_is_refused() -> Result<(), FrameError> {
        let bytes = encode(b"tide")?;
        for end in 1..bytes.len() {
            let mut decoder = Decoder::new(MAX_FRAME_BYTES);
            decoder.push(&bytes[..end]);
            assert_eq!(decoder.next_frame()?, None);
            assert_eq!(decoder.finish(), Err(FrameError::Cut { arrived: end }));
        }
        Ok(())
    }

    #[test]
    fn four_gigabytes_announced_take_no_memory() {
        let mut decoder = Decoder::new(MAX_FRAME_BYTES);
        decoder.push(&[0xFF; 5]);
        let refused = decoder.next_frame();
        let announced = u32::MAX as usize;
        assert_eq!(refused, Err(FrameError::TooLong { announced, limit: MAX_FRAME_BYTES }));
        assert!(decoder.arrived.capacity() < 1024);
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn an_announced_frame_takes_memory_as_its_bytes_come() -> Result<(), FrameError> {
        let mut decoder = Decoder::new(MAX_FRAME_BYTES);
        decoder.push(&(MAX_FRAME_BYTES as u32).to_le_bytes());
        decoder.push(&[1; 1000]);
        assert_eq!(decoder.next_frame()?, None);
        assert!(decoder.arrived.capacity() < 8192);
        Ok(())
    }

    #[test]
    fn the_limit_itself_passes_and_one_more_does_not() -> Result<(), FrameError> {
        assert_eq!(encode(&vec![1; MAX_FRAME_BYTES])?.len(), HEADER_BYTES + MAX_FRAME_BYTES);
        assert!(encode(&vec![1; MAX_FRAME_BYTES + 1]).is_err());
        let mut decoder = Decoder::new(4);
        decoder.push(&encode(b"1234")?);
        decoder.push(&encode(b"12345")?);
        assert_eq!(decoder.next_frame()?, Some(Bytes::from_static(b"1234")));
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { announced: 5, limit: 4 }));
        Ok(())
    }
}
