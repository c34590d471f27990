//! What late ops did to one text is taken back by one change, from how it stands after the last of them to how it would
//! stand without them. Each by a change of its own would put back what one late op had written and a later one took away.

use super::TextChange;
use crate::apply::Place;
use crate::body;
use crate::db::Db;
use crate::error::Result;
use crate::id::Dot;
use crate::op::{BodyEdit, Op, Payload};

/// The field, the creation, the text.
type Text = (u16, Dot, String);

impl Db {
    /// A text without what is still to be taken back.
    pub(super) fn text_in_time(&self, place: &Place, field: u16, creation: Dot) -> Result<String> {
        let mut content = self.content(place, field, creation)?;
        for (_, inverse) in self.inverses_at(place)? {
            for (f, c, heads, text) in &inverse.texts {
                if (*f, *c) != (field, creation) {
                    continue;
                }
                if let Some(change) = body::edit_from(&content, *c, self.origin, heads, text)? {
                    content = body::apply(&content, *c, &[&change])?;
                }
            }
        }
        Ok(content.text)
    }

    /// What was kept for these texts before is done by what is kept from now on.
    pub(super) fn take_over_texts(&self, place: &Place, texts: &[TextChange]) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let is_taken = |old: &TextChange| texts.iter().any(|new| (new.0, new.1) == (old.0, old.1));
        for (id, mut inverse) in self.inverses_at(place)? {
            if inverse.texts.iter().any(is_taken) {
                inverse.texts.retain(|text| !is_taken(text));
                self.put_inverse(id, &inverse)?;
            }
        }
        Ok(())
    }

    /// If this op of another node takes back something of what late ops did to texts: how they would stand without all of it.
    pub(super) fn texts_before(&mut self, op: &Op) -> Result<Vec<Text>> {
        let Payload::Write(write) = &op.payload else { return Ok(vec![]) };
        let mut texts = Vec::new();
        for body in &write.bodies {
            if let BodyEdit::Change { creation, .. } = body.edit {
                texts.push((body.field, creation));
            }
        }
        if texts.is_empty() || !self.takes_back(op, &write.seen.creations)? {
            return Ok(vec![]);
        }
        let place = self.place_of(op)?;
        let inverses = self.inverses_at(&place)?;
        let kept = |(field, creation): &(u16, Dot)| {
            let mut kept = inverses.iter().flat_map(|(_, inverse)| &inverse.texts);
            kept.any(|text| (text.0, text.1) == (*field, *creation))
        };
        let texts = texts.into_iter().filter(kept);
        texts.map(|(f, c)| Ok((f, c, self.text_in_time(&place, f, c)?))).collect()
    }

    /// Whether a write names a late op because it takes it back, and not because that made the record.
    fn takes_back(&mut self, op: &Op, named: &[Dot]) -> Result<bool> {
        for dot in named {
            if self.is_late(&op.stream, *dot)? {
                let place = self.place_of(op)?;
                if self.inverse_of(&place, *dot)?.is_some_and(|inverse| !inverse.creates) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Once it is applied, what is still kept for them begins from there.
    pub(super) fn rebase_texts(&mut self, op: &Op, texts: Vec<Text>) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let place = self.place_of(op)?;
        let Some(stored) = self.load_state(&place)? else { return Ok(()) };
        for (id, mut inverse) in self.inverses_at(&place)? {
            let mut is_changed = false;
            for (field, creation, heads, wanted) in &mut inverse.texts {
                let text = texts.iter().find(|text| (text.0, text.1) == (*field, *creation));
                let body = stored.state.body_of(*field, *creation);
                if let (Some((_, _, text)), Some(body)) = (text, body) {
                    (*heads, *wanted) = (body.heads.clone(), text.clone());
                    is_changed = true;
                }
            }
            if is_changed {
                self.put_inverse(id, &inverse)?;
            }
        }
        Ok(())
    }
}
