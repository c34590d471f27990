//! XML written by hand: elements, attributes and text that can hold anything. What XML has no place for is left out, so
//! that every document can be read.

use std::fmt::Write;

pub(super) struct Xml(String);

impl Xml {
    pub fn new() -> Self {
        Self("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned())
    }

    pub fn open(&mut self, name: &str, attributes: &[(&str, &str)]) -> &mut Self {
        self.begin(name, attributes);
        self.0.push_str(">\n");
        self
    }

    pub fn close(&mut self, name: &str) -> &mut Self {
        let _ = writeln!(self.0, "</{name}>");
        self
    }

    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.text_with(name, &[], text)
    }

    pub fn text_with(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) -> &mut Self {
        self.begin(name, attributes);
        let _ = writeln!(self.0, ">{}</{name}>", escape(text));
        self
    }

    pub fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) -> &mut Self {
        self.begin(name, attributes);
        self.0.push_str("/>\n");
        self
    }

    fn begin(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let _ = write!(self.0, "<{name}");
        for (attribute, value) in attributes {
            let _ = write!(self.0, " {attribute}=\"{}\"", escape(value));
        }
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Whether XML 1.0 has a place for it.
pub(super) fn has_place(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => true,
        '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => false,
        _ => true,
    }
}

/// Text as it stands between tags and in attributes, without the characters that XML 1.0 has no place for.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if has_place(c) => escaped.push(c),
            _ => {}
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_has_its_place_or_is_left_out() {
        let mut xml = Xml::new();
        xml.open("a", &[("b", "\"<&>'")]).text("c", "x\u{0}\u{8}\u{1b}\u{ffff}y\n]]>").close("a");
        let wanted = "<a b=\"&quot;&lt;&amp;&gt;&#39;\">\n<c>xy\n]]&gt;</c>\n</a>\n";
        assert!(xml.into_string().ends_with(wanted));
    }
}
