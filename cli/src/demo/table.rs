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
        self.are_equal(&[0, 1, 2])
    }

    /// Of some of the nodes, by their places.
    pub fn are_equal(&self, places: &[usize]) -> bool {
        let mut digests = places.iter().filter_map(|place| self.digests.get(*place));
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    pub fn print(&self, paint: Paint) {
        put!("{}", self.text(paint));
    }

    /// Lines of at most 79 characters: a narrow terminal would break them, and then nothing is drawn over them.
    fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        let names: Vec<String> =
            self.names.iter().map(|name| paint.bold(&format!("{name:19}"))).collect();
        line(&mut text, "stream", &names);
        for (stream, cells) in &self.rows {
            let tenant =
                if stream.tenant == atoll_storage::Id::NIL { "network" } else { "default" };
            let shown: Vec<String> = cells.iter().map(|cell| shown(*cell, paint)).collect();
            line(&mut text, &format!("{tenant}/{}", stream.scope), &shown);
        }
        let is_equal = self.is_equal();
        let digest = |digest: &Digest| {
            let digest = format!("{:19}", digest.to_string());
            if is_equal { paint.good(&digest) } else { paint.soft(&digest) }
        };
        let digests: Vec<String> = self.digests.iter().map(digest).collect();
        line(&mut text, if is_equal { "digest: equal" } else { "digest: differs" }, &digests);
        text
    }
}

fn line(text: &mut String, first: &str, cells: &[String]) {
    let _ = writeln!(text, "  {first:17} {}", cells.join(" ").trim_end());
}

/// How much of what there is a node has: a bar, the ops, and how many it lacks.
fn shown((ops, lag): (u64, u64), paint: Paint) -> String {
    const BAR: u64 = 6;
    let full = if lag == 0 { BAR } else { (ops * BAR / (ops + lag)).min(BAR - 1) };
    let (done, rest) = ("█".repeat(full as usize), "░".repeat((BAR - full) as usize));
    if lag == 0 {
        return format!("{} {ops:>5} {:6}", paint.good(&done), "");
    }
    let lacks = format!("{:6}", format!("-{lag}"));
    format!("{}{} {ops:>5} {}", paint.warn(&done), paint.soft(&rest), paint.warn(&lacks))
}

/// Colours, where they are seen.
#[derive(Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    /// Of a terminal whose owner did not say otherwise.
    pub fn of(is_terminal: bool) -> Self {
        Self(is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn code(self, code: u8, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    pub fn bold(self, text: &str) -> String {
        self.code(1, text)
    }

    pub fn good(self, text: &str) -> String {
        self.code(32, text)
    }

    fn warn(self, text: &str) -> String {
        self.code(33, text)
    }

    fn soft(self, text: &str) -> String {
        self.code(90, text)
    }
}

/// A table that is drawn over itself in a terminal, and not at all elsewhere.
pub struct Live {
    is_live: bool,
    paint: Paint,
    drawn_lines: usize,
    drawn: String,
}

impl Live {
    pub fn new(is_live: bool, paint: Paint) -> Self {
        Self { is_live, paint, drawn_lines: 0, drawn: String::new() }
    }

    pub fn is_live(&self) -> bool {
        self.is_live
    }

    pub fn show(&mut self, table: &Table) {
        let text = table.text(self.paint);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_if_nothing_lacks() {
        let cell = |ops, lag| shown((ops, lag), Paint(false));
        assert_eq!(cell(5, 0), "██████     5       ");
        assert_eq!(cell(0, 7), "░░░░░░     0 -7    ");
        assert_eq!(cell(9_999, 1), "█████░  9999 -1    ");
        assert!(
            [cell(0, 0), cell(5, 5), cell(12_345, 67_890)].iter().all(|c| c.chars().count() == 19)
        );
        assert!(shown((1, 1), Paint(true)).contains("\u{1b}[33m"));
    }
}
