//! What the peer asks of this side's state: indexes of streams and chunks of records.

use super::{Result, Session};
use crate::message::{MAX_PAGES, MAX_UNPACKED_BYTES, Message, Packed, pages};
use crate::piece::{self, Piece};
use crate::session::Reason;
use atoll_storage::{RecordRange, Replica, StreamHead, StreamId, codec};

/// What a message holds beside a chunk.
const ENVELOPE_BYTES: usize = 1 << 10;

/// The last chunk that was too long for a message, as long as its pieces are asked for.
pub(super) struct Serving {
    stream: StreamId,
    range: RecordRange,
    pieces: Vec<Piece>,
    asked_ms: u64,
}

impl Session {
    pub(super) fn serve_index(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        stream: StreamId,
    ) -> Result<()> {
        if !self.may_ask(replica, &stream)? {
            return Ok(());
        }
        let index = replica.served_index(&stream)?;
        self.block(&stream, &index.vector, true);
        let pages = pages(index.chunks);
        if pages.len() > usize::from(MAX_PAGES) {
            return Err(Reason::Store(format!("the stream {stream} is too large for a snapshot")));
        }
        for page in pages {
            self.send(&Message::Index { request, vector: index.vector.clone(), page });
        }
        Ok(())
    }

    /// What is nowhere here was not told either: who asks for it all the same must not make this node remember its name.
    fn may_ask(&self, replica: &mut dyn Replica, stream: &StreamId) -> Result<bool> {
        Ok(self.outward(stream).is_all() && replica.head(stream)?.is_some())
    }

    pub(super) fn serve_chunk(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        stream: StreamId,
        range: RecordRange,
    ) -> Result<()> {
        self.read_chunk(replica, request, stream, range, 0)
    }

    /// Sends a chunk, or of one that is too long the piece of this number.
    fn read_chunk(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        stream: StreamId,
        range: RecordRange,
        number: u16,
    ) -> Result<()> {
        if !self.may_ask(replica, &stream)? {
            return Ok(());
        }
        let chunk = replica.snapshot_chunk(&stream, range.0, range.1)?;
        self.block(&stream, &chunk.vector, true);
        self.busy_ms = self.now.elapsed_ms;
        let plain = codec::encode(&chunk);
        let takes_pieces = self.parts.takes_pieces;
        let whole_bytes = if takes_pieces {
            self.options.chunk_bytes
        } else {
            MAX_UNPACKED_BYTES - ENVELOPE_BYTES
        };
        if plain.len() <= whole_bytes {
            self.send(&Message::Chunk { request, chunk: Packed::of_bytes(plain) });
            return Ok(());
        }
        let record = chunk.records.first().map(|record| record.key).unwrap_or_default();
        if !takes_pieces {
            tracing::warn!(%stream, %record, "a record is longer than the peer's release takes: upgrade the peer");
            return Ok(());
        }
        let bytes = codec::encode(&Packed::of_bytes(plain));
        let Some(pieces) = piece::cut(&bytes, self.options.chunk_bytes / 8) else {
            tracing::error!(%stream, %record, "a record is too long for a snapshot: delete it, and make another one of its text");
            return Ok(());
        };
        let asked_ms = self.now.elapsed_ms;
        self.serving = Some(Serving { stream, range, pieces, asked_ms });
        self.send_piece(request, number);
        Ok(())
    }

    pub(super) fn serve_piece(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        stream: StreamId,
        range: RecordRange,
        number: u16,
    ) -> Result<()> {
        let serves = |serving: &Serving| serving.stream == stream && serving.range == range;
        if !self.serving.as_ref().is_some_and(serves) {
            return self.read_chunk(replica, request, stream, range, number);
        }
        if self.outward(&stream).is_all() {
            self.send_piece(request, number);
        }
        Ok(())
    }

    fn send_piece(&mut self, request: u64, number: u16) {
        let now_ms = self.now.elapsed_ms;
        let Some(serving) = &mut self.serving else { return };
        serving.asked_ms = now_ms;
        let (stream, piece) = (serving.stream.clone(), serving.pieces.get(usize::from(number)));
        let piece = piece.cloned();
        self.busy_ms = now_ms;
        self.note_pulling(&stream);
        if let Some(piece) = piece {
            self.send(&Message::Piece { request, piece });
        }
    }

    /// Nobody asks for more of what was cut into pieces.
    pub(super) fn tick_serving(&mut self) {
        let asked_ms = self.serving.as_ref().map(|serving| serving.asked_ms);
        if asked_ms.is_some_and(|asked_ms| self.is_overdue(asked_ms)) {
            self.serving = None;
        }
    }

    pub(super) fn on_pulled(&mut self, replica: &mut dyn Replica, head: StreamHead) -> Result<()> {
        self.unblock(&head.stream);
        if !self.shares(&head.stream) {
            return Ok(());
        }
        let mine = replica.head(&head.stream)?;
        self.compare_heads(mine.as_ref(), &head)?;
        if self.compared {
            self.begin_pushing(replica)?;
        }
        self.pull_next();
        Ok(())
    }
}
