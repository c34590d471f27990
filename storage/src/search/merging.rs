//! Which segments of the index become one. What a merge holds in memory grows with its documents, so there is a bound on
//! those: a node with many more has some segments more, each of which a query looks into.

use tantivy::SegmentMeta;
use tantivy::indexer::{LogMergePolicy, MergeCandidate, MergePolicy};

/// A segment is rewritten once so much of it is deleted.
const MAX_DELETED: f32 = 0.3;
/// Documents in what a merge makes.
const MAX_DOCUMENTS: u32 = 150_000;

#[derive(Debug)]
pub(super) struct Bounded {
    /// For segments that can still grow.
    of_small: LogMergePolicy,
    max_documents: u32,
}

impl Default for Bounded {
    fn default() -> Self {
        Self::upto(MAX_DOCUMENTS)
    }
}

impl Bounded {
    fn upto(max_documents: u32) -> Self {
        let mut of_small = LogMergePolicy::default();
        of_small.set_del_docs_ratio_before_merge(MAX_DELETED);
        Self { of_small, max_documents }
    }

    fn can_grow(&self, segment: &SegmentMeta) -> bool {
        segment.num_docs() <= self.max_documents / 2
    }

    /// A group in parts that stay within the bound. What is alone and whole stays as it is.
    fn cut(&self, mut group: Vec<&SegmentMeta>) -> Vec<MergeCandidate> {
        group.sort_by_key(|segment| segment.num_docs());
        let mut parts: Vec<(u32, Vec<&SegmentMeta>)> = vec![];
        for segment in group {
            let documents = segment.num_docs();
            match parts.last_mut().filter(|(sum, _)| sum + documents <= self.max_documents) {
                Some((sum, part)) => {
                    *sum += documents;
                    part.push(segment);
                }
                None => parts.push((documents, vec![segment])),
            }
        }
        let is_of_use = |part: &Vec<&SegmentMeta>| {
            part.len() > 1 || part.iter().any(|segment| is_worn(segment))
        };
        let parts = parts.into_iter().map(|(_, part)| part).filter(is_of_use);
        parts
            .map(|part| MergeCandidate(part.iter().map(|segment| segment.id()).collect()))
            .collect()
    }
}

fn is_worn(segment: &SegmentMeta) -> bool {
    segment.num_deleted_docs() as f32 > MAX_DELETED * segment.max_doc() as f32
}

impl MergePolicy for Bounded {
    fn compute_merge_candidates(&self, segments: &[SegmentMeta]) -> Vec<MergeCandidate> {
        let (small, large): (Vec<SegmentMeta>, Vec<SegmentMeta>) =
            segments.iter().cloned().partition(|segment| self.can_grow(segment));
        let groups = self.of_small.compute_merge_candidates(&small);
        let groups = groups.iter().flat_map(|MergeCandidate(ids)| {
            self.cut(small.iter().filter(|segment| ids.contains(&segment.id())).collect())
        });
        let worn = large
            .iter()
            .filter(|segment| is_worn(segment))
            .map(|segment| MergeCandidate(vec![segment.id()]));
        groups.chain(worn).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tantivy::schema::{INDEXED, Schema};
    use tantivy::{Index, IndexWriter, TantivyDocument, Term};

    #[test]
    fn segments_grow_up_to_the_bound_and_lose_what_is_deleted() {
        let mut schema = Schema::builder();
        let number = schema.add_u64_field("number", INDEXED);
        let index = Index::create_in_ram(schema.build());
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 15_000_000).unwrap();
        writer.set_merge_policy(Box::new(Bounded::upto(100)));
        for batch in 0..40 {
            for n in batch * 10..batch * 10 + 10 {
                let mut document = TantivyDocument::new();
                document.add_u64(number, n);
                writer.add_document(document).unwrap();
            }
            writer.commit().unwrap();
        }
        writer.wait_merging_threads().unwrap();
        let segments = index.searchable_segment_metas().unwrap();
        let documents: Vec<u32> = segments.iter().map(SegmentMeta::num_docs).collect();
        assert_eq!(documents.iter().sum::<u32>(), 400);
        assert!(documents.iter().all(|documents| *documents <= 100), "{documents:?}");
        assert!(documents.iter().any(|documents| *documents > 50), "{documents:?}");
        assert!(segments.len() < 20, "{documents:?}");

        let mut writer: IndexWriter = index.writer_with_num_threads(1, 15_000_000).unwrap();
        writer.set_merge_policy(Box::new(Bounded::upto(100)));
        for n in (0..400).filter(|n| n % 5 > 0) {
            writer.delete_term(Term::from_field_u64(number, n));
        }
        writer.commit().unwrap();
        writer.wait_merging_threads().unwrap();
        let segments = index.searchable_segment_metas().unwrap();
        assert_eq!(segments.iter().map(SegmentMeta::num_docs).sum::<u32>(), 80);
        assert!(!segments.iter().any(is_worn));
    }
}
