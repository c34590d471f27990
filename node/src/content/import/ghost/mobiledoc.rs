//! A body as Ghost's older editor keeps it (Mobiledoc 0.3), as HTML: sections of texts, whose marks open and close by
//! number, and cards. What is not known is told and left out.

use super::card::{self, Page};
use serde_json::Value as Json;

const TEXT: u64 = 1;
const PICTURE: u64 = 2;
const LIST: u64 = 3;
const CARD: u64 = 10;

/// # Errors
/// What is wrong with it, if it is no such body.
pub(super) fn page(text: &str) -> Result<Page, String> {
    let body: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let sections = body["sections"].as_array().ok_or("it has no sections")?;
    let mut page = Page::default();
    for section in sections {
        match section[0].as_u64() {
            Some(TEXT) => {
                let name = element(section[1].as_str().unwrap_or_default());
                page.open(name, &[]);
                markers(&mut page, &body, &section[2]);
                page.close(name);
                page.raw("\n");
            }
            Some(PICTURE) => {
                page.open("img", &[("src", section[1].as_str().unwrap_or_default())]);
                page.raw("\n");
            }
            Some(LIST) => {
                let name = if section[1] == "ol" { "ol" } else { "ul" };
                page.open(name, &[]);
                for item in section[2].as_array().into_iter().flatten() {
                    page.open("li", &[]);
                    markers(&mut page, &body, item);
                    page.close("li");
                }
                page.close(name);
                page.raw("\n");
            }
            Some(CARD) => {
                let at = section[1].as_u64().and_then(|at| usize::try_from(at).ok());
                let card = at.map_or(&Json::Null, |at| &body["cards"][at]);
                card::put(&mut page, card[0].as_str().unwrap_or("without a name"), &card[1]);
            }
            _ => page.leave_out("section"),
        }
    }
    Ok(page)
}

/// Names that come from a file are elements only if they are these.
fn element(name: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "blockquote",
        "aside",
        "a",
        "b",
        "strong",
        "i",
        "em",
        "s",
        "u",
        "code",
        "sub",
        "sup",
        "del",
    ];
    KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name)).copied().unwrap_or("p")
}

fn markers(page: &mut Page, body: &Json, markers: &Json) {
    let mut open: Vec<&'static str> = Vec::new();
    for marker in markers.as_array().into_iter().flatten() {
        for number in marker[1].as_array().into_iter().flatten().filter_map(Json::as_u64) {
            let markup = usize::try_from(number).map_or(&Json::Null, |at| &body["markups"][at]);
            let name = match element(markup[0].as_str().unwrap_or_default()) {
                "p" => "span",
                name => name,
            };
            page.open(name, &[("href", attribute(&markup[1], "href"))]);
            open.push(name);
        }
        if marker[0] == 0 {
            page.text(marker[3].as_str().unwrap_or_default());
        } else {
            atom(page, body, &marker[3]);
        }
        for _ in 0..marker[2].as_u64().unwrap_or(0).min(open.len() as u64) {
            if let Some(name) = open.pop() {
                page.close(name);
            }
        }
    }
    open.into_iter().rev().for_each(|name| page.close(name));
}

fn atom(page: &mut Page, body: &Json, number: &Json) {
    let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
    let atom = at.map_or(&Json::Null, |at| &body["atoms"][at]);
    match atom[0].as_str() {
        Some("soft-return") => page.raw("<br>"),
        _ => page.text(atom[1].as_str().unwrap_or_default()),
    }
}

/// Keys and values stand in one list.
fn attribute<'a>(list: &'a Json, name: &str) -> &'a str {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let pairs = list.chunks_exact(2);
    pairs.into_iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sections_marks_and_cards_become_html() {
        let body = json!({
            "version": "0.3.1",
            "markups": [["strong"], ["a", ["href", "https://x.org"]], ["script"]],
            "atoms": [["soft-return", "", {}]],
            "cards": [["hr", {}], ["code", { "code": "<x>" }], ["of-yesterday", {}]],
            "sections": [
                [1, "h2", [[0, [], 0, "Head"]]],
                [1, "p", [[0, [0], 0, "a"], [0, [1], 2, "b"], [1, [], 0, 0], [0, [2], 1, "<c>"]]],
                [3, "ol", [[[0, [], 0, "one"]], [[0, [], 0, "two"]]]],
                [10, 0], [10, 1], [10, 2], [10, 99], [2, "/p.png"], [7],
            ],
        });
        let page = page(&body.to_string()).unwrap();
        let wanted = "<h2>Head</h2>\n<p><strong>a<a href=\"https://x.org\">b</a></strong><br><span>&lt;c&gt;</span></p>\n\
                      <ol><li>one</li><li>two</li></ol>\n<hr>\n<pre><code>&lt;x&gt;</code></pre>\n";
        assert!(page.html.starts_with(wanted), "{}", page.html);
        assert_eq!(
            page.left_out.iter().map(String::as_str).collect::<Vec<_>>(),
            ["of-yesterday", "section", "without a name"]
        );
    }

    #[test]
    fn what_is_no_body_is_told() {
        assert!(page("{}").is_err() && page("x").is_err());
        let odd = json!({ "sections": [1, [1], [1, "p", [[0, [9], 9, 9]]], [3, 3, 3], [10, -1]] });
        assert!(page(&odd.to_string()).is_ok());
    }
}
