//! Counts the values of facets among all hits. The values seen are bounded by what the documents hold, those given
//! back by `MAX_VALUES` a name.

use super::schema::{FACET, SEPARATOR};
use std::collections::{BTreeMap, HashMap};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::StrColumn;
use tantivy::{DocId, Score, SegmentOrdinal, SegmentReader};

const MAX_VALUES: usize = 50;

/// Facet terms (name and value in one) with the number of hits that carry them.
pub type Counts = HashMap<String, u64>;

pub struct CountFacets;

pub struct SegmentCounts {
    column: Option<StrColumn>,
    by_ordinal: HashMap<u64, u64>,
}

impl Collector for CountFacets {
    type Fruit = Counts;
    type Child = SegmentCounts;

    fn for_segment(
        &self,
        _: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> tantivy::Result<SegmentCounts> {
        Ok(SegmentCounts { column: segment.fast_fields().str(FACET)?, by_ordinal: HashMap::new() })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<tantivy::Result<Counts>>) -> tantivy::Result<Counts> {
        let mut all = Counts::new();
        for segment in segments {
            add(&mut all, segment?);
        }
        Ok(all)
    }
}

impl SegmentCollector for SegmentCounts {
    type Fruit = tantivy::Result<Counts>;

    fn collect(&mut self, doc: DocId, _: Score) {
        let Some(column) = &self.column else { return };
        for ordinal in column.ords().values_for_doc(doc) {
            *self.by_ordinal.entry(ordinal).or_default() += 1;
        }
    }

    fn harvest(self) -> tantivy::Result<Counts> {
        let mut counts = Counts::new();
        let Some(column) = self.column else { return Ok(counts) };
        for (ordinal, count) in self.by_ordinal {
            let mut term = String::new();
            if column.ord_to_str(ordinal, &mut term)? {
                counts.insert(term, count);
            }
        }
        Ok(counts)
    }
}

pub fn add(all: &mut Counts, more: Counts) {
    for (term, count) in more {
        *all.entry(term).or_default() += count;
    }
}

/// The asked names in their order, each with its most frequent values first.
pub fn named(counts: &Counts, names: &[String]) -> Vec<(String, Vec<(String, u64)>)> {
    let mut by_name: BTreeMap<&str, Vec<(String, u64)>> = BTreeMap::new();
    for (term, count) in counts {
        if let Some((name, value)) = term.split_once(SEPARATOR) {
            by_name.entry(name).or_default().push((value.to_owned(), *count));
        }
    }
    let most_first = |name: &String| {
        let mut values = by_name.remove(name.as_str()).unwrap_or_default();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        values.truncate(MAX_VALUES);
        (name.clone(), values)
    };
    names.iter().map(most_first).collect()
}
