//! HTML written by hand: text and attributes that can hold anything are escaped here and nowhere else. Names of
//! elements and attributes are fixed in the code. The one way past the escaping is HTML of the sanitiser.

use serde_json::Value;
use std::fmt::Write;

pub(super) struct Html(String);

type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Html {
    pub fn new() -> Self {
        Self("<!doctype html>\n".to_owned())
    }

    pub fn open(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.0.push('<');
        self.0.push_str(name);
        for (attribute, value) in attributes {
            if leads_away(attribute) && !is_address(value) {
                continue;
            }
            self.0.push(' ');
            self.0.push_str(attribute);
            self.0.push_str("=\"");
            escape(value, &mut self.0);
            self.0.push('"');
        }
        self.0.push('>');
        self
    }

    pub fn close(&mut self, name: &'static str) -> &mut Self {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push_str(">\n");
        self
    }

    /// An element without an end.
    pub fn void(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.open(name, attributes);
        self.0.push('\n');
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        escape(text, &mut self.0);
        self
    }

    /// An element that holds nothing but text.
    pub fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        text: &str,
    ) -> &mut Self {
        self.open(name, attributes).text(text).close(name)
    }

    /// What `render` gave back: it went through the sanitiser.
    pub fn sanitised(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    /// JSON as data of the page. Nothing in it can end the element.
    pub fn json_ld(&mut self, value: &Value) -> &mut Self {
        self.open("script", &[("type", "application/ld+json")]);
        for c in value.to_string().chars() {
            match c {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.close("script")
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

fn leads_away(attribute: &str) -> bool {
    matches!(attribute, "href" | "src")
}

/// On the web, or on this site; `javascript:` and its like are none.
fn is_address(text: &str) -> bool {
    let on_site = text.starts_with(['/', '?', '#']) && !text.starts_with("//");
    let on_web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
    (on_site && !text.starts_with("/\\")) || on_web
}

/// For pages that are written as plain text.
pub(crate) fn escaped(text: &str) -> String {
    let mut into = String::with_capacity(text.len());
    escape(text, &mut into);
    into
}

fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        match c {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\'' => into.push_str("&#39;"),
            '\0' => {}
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_place() {
        let hostile = "\"'><script>alert(1)</script>&\0";
        let mut html = Html::new();
        html.element("p", &[("title", hostile)], hostile);
        let html = html.into_string();
        let escaped = "&quot;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;";
        assert_eq!(html, format!("<!doctype html>\n<p title=\"{escaped}\">{escaped}</p>\n"));
    }

    #[test]
    fn links_lead_to_the_web_or_stay_on_the_site() {
        for address in ["/a", "#a", "?a=b", "https://a.org", "http://a.org"] {
            assert!(is_address(address), "{address}");
        }
        for address in [
            "javascript:alert(1)",
            " javascript:1",
            "//evil.org",
            "/\\evil.org",
            "data:text/html,x",
            "",
            "a",
        ] {
            assert!(!is_address(address), "{address}");
            let mut html = Html::new();
            html.void("a", &[("href", address)]);
            assert!(html.into_string().ends_with("<a>\n"), "{address}");
        }
    }

    #[test]
    fn data_cannot_end_its_element() {
        let mut html = Html::new();
        html.json_ld(&serde_json::json!({ "a": "</script><script>&\u{2028}" }));
        let html = html.into_string();
        assert_eq!(html.matches("</script>").count(), 1);
        assert!(html.contains("\\u003c/script\\u003e\\u003cscript\\u003e\\u0026\\u2028"), "{html}");
    }
}
