//! Answers a query: exact words first, then, where those find little, words typed slightly wrong. Every list, depth
//! and number of words is bounded; no text of a person reaches a query parser.

use super::exclude::Excluded;
use super::facets::{self, CountFacets, Counts};
use super::schema::{self, Fields, facet_term, status_text};
use super::text::{Asked, Clause};
use super::{Hit, Hits, MAX_LIMIT, MAX_OFFSET, Result, SearchQuery, Sort};
use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::ops::Bound;
use std::time::Instant;
use tantivy::collector::{Collector, Count, TopDocs};
use tantivy::fastfield::Column;
use tantivy::query::{
    BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, FuzzyTermQuery, Occur,
    PhrasePrefixQuery, PhraseQuery, Query, RangeQuery, TermQuery, TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocAddress, Order, Score, Searcher, SegmentReader, Term};

/// Below so many exact hits, words typed wrong are tried as well.
const FEW_HITS: usize = 10;
const MAX_FUZZY_WORDS: usize = 8;
const MAX_PREFIX_WORDS: u32 = 256;
const MAX_FILTERS: usize = 100;
const TIE_BREAKER: Score = 0.1;
/// What a word that only begins as asked is worth, and one that is only similar.
const PREFIX_SCORE: Score = 0.5;
const FUZZY_SCORE: Score = 0.3;
/// A thousandfold rank adds a third to the score.
const RANK_WEIGHT: Score = 0.05;

pub type Boxed = Box<dyn Query>;
type Found = (Score, DocAddress);

/// What one pass gives back.
struct Pass {
    found: Vec<Found>,
    total: usize,
    counts: Counts,
}

/// Which hits of a pass are wanted, and how.
#[derive(Clone, Copy)]
struct Page {
    offset: usize,
    limit: usize,
    newest: bool,
    facets: bool,
}

pub fn find(searcher: &Searcher, fields: &Fields, query: &SearchQuery) -> Result<Hits> {
    let started = Instant::now();
    let asked = Asked::read(&query.text);
    let page = Page {
        offset: query.offset.min(MAX_OFFSET),
        limit: query.limit.min(MAX_LIMIT),
        newest: query.sort == Sort::Newest || asked.wanted.is_empty(),
        facets: !query.count_facets.is_empty(),
    };
    let mut pass = Pass { found: Vec::new(), total: 0, counts: Counts::new() };
    if !asked.wanted.is_empty() || !asked.unwanted.is_empty() || asked.blank {
        let finder = Finder { searcher, fields, query, asked: &asked };
        pass = finder.all_passes(page)?;
    }
    Ok(Hits {
        total: pass.total as u64,
        hits: hits(searcher, &pass.found)?,
        facets: facets::named(&pass.counts, &query.count_facets),
        took_us: started.elapsed().as_micros() as u64,
    })
}

struct Finder<'a> {
    searcher: &'a Searcher,
    fields: &'a Fields,
    query: &'a SearchQuery,
    asked: &'a Asked,
}

impl Finder<'_> {
    /// The list is that of the exact hits followed by that of the similar ones, so that its pages fit together. Two
    /// letters wrong, five times as costly as one, are looked for where nothing else was found.
    fn all_passes(&self, page: Page) -> Result<Pass> {
        let exact = BooleanQuery::new(self.clauses(|clause| self.fields.exact(clause)));
        let mut pass = self.run(&exact, page)?;
        // In a list by date, similar words would stand before better hits: there they are the last resort.
        let few = if page.newest { 1 } else { FEW_HITS };
        let allowed = self.asked.wanted.iter().map(typos_in).max().unwrap_or(0);
        for typos in 1..=allowed {
            if pass.total >= if typos == 1 { few } else { 1 } {
                break;
            }
            let rest = Page {
                offset: page.offset.saturating_sub(pass.total),
                limit: page.limit - pass.found.len(),
                ..page
            };
            let more = self.run(&self.similar(typos, exact.clone()), rest)?;
            pass.found.extend(more.found);
            pass.total += more.total;
            facets::add(&mut pass.counts, more.counts);
        }
        Ok(pass)
    }

    fn similar(&self, typos: u8, exact: BooleanQuery) -> BooleanQuery {
        let mut left = MAX_FUZZY_WORDS;
        let mut all = self.clauses(|clause| self.fields.similar(clause, typos, &mut left));
        all.push((Occur::MustNot, Box::new(Excluded(Box::new(exact)))));
        BooleanQuery::new(all)
    }

    fn clauses(&self, mut query: impl FnMut(&Clause) -> Boxed) -> Vec<(Occur, Boxed)> {
        let mut all: Vec<(Occur, Boxed)> = Vec::new();
        all.extend(self.asked.wanted.iter().map(|clause| (Occur::Must, query(clause))));
        let unwanted =
            |clause| (Occur::MustNot, Box::new(Excluded(self.fields.exact(clause))) as Boxed);
        all.extend(self.asked.unwanted.iter().map(unwanted));
        for filter in self.fields.filters(self.query) {
            all.push((Occur::Must, Box::new(ConstScoreQuery::new(filter, 0.0))));
        }
        all
    }

    fn run(&self, query: &BooleanQuery, page: Page) -> Result<Pass> {
        if page.limit == 0 {
            let (total, counts) = self.searcher.search(query, &(Count, page.count_facets()))?;
            return Ok(Pass { found: Vec::new(), total, counts: counts.unwrap_or_default() });
        }
        let top = TopDocs::with_limit(page.limit).and_offset(page.offset);
        if page.newest {
            let by_date = top.order_by_fast_field::<i64>(schema::DATE, Order::Desc);
            return self.collect(query, by_date, page, |_| 0.0);
        }
        self.collect(query, top.tweak_score(by_rank), page, |score| score)
    }

    fn collect<S, C>(
        &self,
        query: &dyn Query,
        top: C,
        page: Page,
        score: fn(S) -> Score,
    ) -> Result<Pass>
    where
        C: Collector<Fruit = Vec<(S, DocAddress)>>,
    {
        let collectors = (top, Count, page.count_facets());
        let (found, total, counts) = self.searcher.search(query, &collectors)?;
        let found = found.into_iter().map(|(key, at)| (score(key), at)).collect();
        Ok(Pass { found, total, counts: counts.unwrap_or_default() })
    }
}

impl Page {
    fn count_facets(self) -> Option<CountFacets> {
        self.facets.then_some(CountFacets)
    }
}

/// The score of a document, a little more for one that stands high.
pub fn by_rank(segment: &SegmentReader) -> impl Fn(u32, Score) -> Score + use<> {
    let ranks = segment.fast_fields().u64(schema::RANK).ok().map(|c| c.first_or_default_col(0));
    move |doc, score| {
        let rank = ranks.as_ref().map_or(0, |ranks| ranks.get_val(doc));
        score * (1.0 + RANK_WEIGHT * (rank as Score).ln_1p())
    }
}

impl Fields {
    fn prose(&self) -> [(Field, Score); 3] {
        [(self.title, 3.0), (self.keywords, 2.0), (self.body, 1.0)]
    }

    fn exact(&self, clause: &Clause) -> Boxed {
        let mut any: Vec<Boxed> = Vec::new();
        for (field, boost) in self.prose() {
            any.extend(exact_in(field, boost, clause));
        }
        Box::new(DisjunctionMaxQuery::with_tie_breaker(any, TIE_BREAKER))
    }

    /// The exact clause or, as long as words are `left` to spend on it, words with so many `typos`.
    fn similar(&self, clause: &Clause, typos: u8, left: &mut usize) -> Boxed {
        let distance = typos_in(clause).min(typos);
        if distance == 0 || *left == 0 {
            return self.exact(clause);
        }
        *left -= 1;
        let mut any = vec![self.exact(clause)];
        for (field, boost) in self.prose() {
            let term = Term::from_field_text(field, &clause.words[0]);
            let fuzzy = if clause.prefix {
                FuzzyTermQuery::new_prefix(term, distance, true)
            } else {
                FuzzyTermQuery::new(term, distance, true)
            };
            any.push(Box::new(ConstScoreQuery::new(Box::new(fuzzy), FUZZY_SCORE * boost)));
        }
        Box::new(DisjunctionMaxQuery::with_tie_breaker(any, TIE_BREAKER))
    }

    fn filters(&self, query: &SearchQuery) -> Vec<Boxed> {
        let mut all: Vec<Boxed> = vec![plain(Term::from_field_bytes(self.tenant, &query.tenant.0))];
        if !query.kinds.is_empty() {
            let kinds = query.kinds.iter().take(MAX_FILTERS);
            let terms = kinds.map(|kind| Term::from_field_u64(self.kind, u64::from(*kind)));
            all.push(Box::new(TermSetQuery::new(terms)));
        }
        if query.public_only {
            all.push(plain(Term::from_field_bool(self.public, true)));
        }
        if let Some(status) = &query.status {
            all.push(plain(Term::from_field_text(self.status, status_text(status))));
        }
        if let Some(parent) = query.parent {
            all.push(plain(Term::from_field_bytes(self.parent, &parent.0)));
        }
        all.extend(self.facet_filters(&query.facets));
        if query.from_ms.is_some() || query.to_ms.is_some() {
            let date = |ms| Term::from_field_i64(self.date, ms);
            let from = query.from_ms.map_or(Bound::Unbounded, |ms| Bound::Included(date(ms)));
            let to = query.to_ms.map_or(Bound::Unbounded, |ms| Bound::Excluded(date(ms)));
            all.push(Box::new(RangeQuery::new(from, to)));
        }
        all
    }

    /// Values of one name are alternatives; every name must be met.
    fn facet_filters(&self, wanted: &[(String, String)]) -> Vec<Boxed> {
        let mut by_name: BTreeMap<&str, Vec<Term>> = BTreeMap::new();
        for (name, value) in wanted.iter().take(MAX_FILTERS) {
            let term = Term::from_field_text(self.facet, &facet_term(name, value));
            by_name.entry(name).or_default().push(term);
        }
        let any = |terms| Box::new(TermSetQuery::new::<Vec<Term>>(terms)) as Boxed;
        by_name.into_values().map(any).collect()
    }
}

pub fn plain(term: Term) -> Boxed {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

/// A clause within one field: the word or phrase itself and, where the person may go on typing, what begins so.
pub fn exact_in(field: Field, boost: Score, clause: &Clause) -> Vec<Boxed> {
    let terms: Vec<Term> =
        clause.words.iter().map(|word| Term::from_field_text(field, word)).collect();
    let whole: Boxed = match terms.as_slice() {
        [term] => Box::new(TermQuery::new(term.clone(), IndexRecordOption::WithFreqs)),
        _ => Box::new(PhraseQuery::new(terms.clone())),
    };
    let mut any: Vec<Boxed> = vec![Box::new(BoostQuery::new(whole, boost))];
    if clause.prefix {
        let mut begins = PhrasePrefixQuery::new(terms);
        begins.set_max_expansions(MAX_PREFIX_WORDS);
        any.push(Box::new(ConstScoreQuery::new(Box::new(begins), PREFIX_SCORE * boost)));
    }
    any
}

/// How many letters of a word may be wrong. A number typed wrong is another number.
pub fn typos_allowed(word: &str) -> u8 {
    match word.chars().count() {
        _ if word.contains(|c: char| c.is_numeric()) => 0,
        0..=3 => 0,
        4..=8 => 1,
        _ => 2,
    }
}

fn typos_in(clause: &Clause) -> u8 {
    match clause.words.as_slice() {
        [word] if !clause.quoted => typos_allowed(word),
        _ => 0,
    }
}

fn hits(searcher: &Searcher, found: &[Found]) -> Result<Vec<Hit>> {
    let mut columns: HashMap<u32, [Column<u64>; 3]> = HashMap::new();
    let mut hits = Vec::with_capacity(found.len());
    for (score, at) in found {
        let [high, low, kind] = match columns.entry(at.segment_ord) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(slot) => {
                let fast = searcher.segment_reader(at.segment_ord).fast_fields();
                let read = [
                    fast.u64(schema::ID_HIGH)?,
                    fast.u64(schema::ID_LOW)?,
                    fast.u64(schema::KIND)?,
                ];
                slot.insert(read)
            }
        };
        let value = |column: &Column<u64>| column.first(at.doc_id).unwrap_or(0);
        let (id, kind) = (schema::joined(value(high), value(low)), value(kind) as u16);
        hits.push(Hit { id, kind, score: *score });
    }
    Ok(hits)
}
