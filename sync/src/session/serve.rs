//! What the peer asks of this side's state: indexes of streams and chunks of records.

use super::{Result, Session};
use crate::message::{MAX_PAGES, Message, Packed, pages};
use crate::session::Reason;
use atoll_storage::{RecordKey, Replica, StreamHead, StreamId};

impl Session {
    pub(super) fn serve_index(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        stream: StreamId,
    ) -> Result<()> {
        if !self.outward(&stream).is_all() {
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

    pub(super) fn serve_chunk(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        stream: StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<()> {
        if !self.outward(&stream).is_all() {
            return Ok(());
        }
        let chunk = replica.snapshot_chunk(&stream, after, upto)?;
        self.block(&stream, &chunk.vector, true);
        self.busy_ms = self.now.elapsed_ms;
        self.send(&Message::Chunk { request, chunk: Packed::of(&chunk) });
        Ok(())
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
