//! The table that shows vectors meeting: a row a stream, a column a node, in each how many ops the node has and how
//! many it lacks of all that there are.

use super::nodes::Three;
use crate::failure::Outcome;
use atoll_storage::heads::StreamHead;
use atoll_storage::read::Read;
use atoll_storage::{Digest, StreamId, Vector};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

pub struct Table {
    names: Vec<String>,
    digests: Vec<Digest>,
    /// Of each stream, by node: ops here, ops lacking.
    rows: BTreeMap<StreamId, Vec<(u64, u64)>>,
}

impl Table {
    pub fn of(three: &Three) -> Outcome<Self> {
        let mut all: Vec<Vec<StreamHead>> = Vec::new();
        let mut digests = Vec::new();
        for running in &three.all {
            let read = running
                .node
                .store
                .read(|reader| Ok::<_, atoll_storage::Error>((reader.streams()?, reader.root()?)));
            let (streams, digest) = read?;
            all.push(streams);
            digests.push(digest);
        }
        let mut together: BTreeMap<StreamId, Vector> = BTreeMap::new();
        for head in all.iter().flatten() {
            together.entry(head.stream.clone()).or_default().merge(&head.vector);
        }
        let rows = together.into_iter().map(|(stream, whole)| {
            let of_node = |heads: &Vec<StreamHead>| {
                let head = heads.iter().find(|head| head.stream == stream);
                let nothing = Vector::default();
                let vector = head.map_or(&nothing, |head| &head.vector);
                (vector.lead_over(&nothing), whole.lead_over(vector))
            };
            let cells = all.iter().map(of_node).collect();
            (stream, cells)
        });
        let rows = rows.collect();
        Ok(Self { names: super::nodes::NAMES.map(str::to_owned).into(), digests, rows })
    }

    /// Equal digests, over vectors and states alike.
    pub fn is_equal(&self) -> bool {
        self.digests.windows(2).all(|pair| pair[0] == pair[1])
    }

    pub fn print(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let line = |text: &mut String, first: &str, cells: &[String]| {
            let _ = write!(text, "  {first:22}");
            cells.iter().for_each(|cell| {
                let _ = write!(text, " {cell:>20}");
            });
            text.push('\n');
        };
        line(&mut text, "stream", &self.names);
        for (stream, cells) in &self.rows {
            let tenant =
                if stream.tenant == atoll_storage::Id::NIL { "network" } else { "default" };
            let shown = |(ops, lag): &(u64, u64)| {
                if *lag == 0 { format!("{ops}") } else { format!("{ops}  lacks {lag}") }
            };
            let shown: Vec<String> = cells.iter().map(shown).collect();
            line(&mut text, &format!("{tenant}/{}", stream.scope), &shown);
        }
        let digests: Vec<String> = self.digests.iter().map(ToString::to_string).collect();
        line(
            &mut text,
            if self.is_equal() { "digest: equal" } else { "digest: not equal" },
            &digests,
        );
        text
    }
}

/// A table that is drawn over itself in a terminal, and not at all elsewhere.
pub struct Live {
    is_live: bool,
    drawn_lines: usize,
    drawn: String,
}

impl Live {
    pub fn new(is_live: bool) -> Self {
        Self { is_live, drawn_lines: 0, drawn: String::new() }
    }

    pub fn is_live(&self) -> bool {
        self.is_live
    }

    pub fn show(&mut self, table: &Table) {
        let text = table.text();
        if !self.is_live || text == self.drawn {
            return;
        }
        let mut out = std::io::stdout().lock();
        let up = if self.drawn_lines > 0 {
            format!("\u{1b}[{}A\u{1b}[J", self.drawn_lines)
        } else {
            String::new()
        };
        // A terminal that is gone is no reason to stop.
        let _ = write!(out, "{up}{text}").and_then(|()| out.flush());
        self.drawn_lines = text.lines().count();
        self.drawn = text;
    }
}
