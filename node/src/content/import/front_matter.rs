//! The lines at the head of a Markdown file: `---` with a subset of YAML, or `+++` with a subset of TOML,
//! or an object of JSON. Only what
//! posts are described by: texts, flags, dates, lists. Bounded in size, and never an error: what it can't read it
//! leaves out.

use serde_json::{Map, Value as Json};

const MAX_BYTES: usize = 64 << 10;
const MAX_KEYS: usize = 200;
const MAX_ITEMS: usize = 200;

/// Keys in lower case with their values, in order, and which of them were written as lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FrontMatter(Vec<(String, Vec<String>)>, Vec<String>);

impl FrontMatter {
    /// The first of these keys that has a value.
    pub fn text(&self, keys: &[&str]) -> Option<&str> {
        self.list(keys).first().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Written as a list, be it of one.
    pub fn is_list(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.1.iter().any(|known| known == key))
    }

    /// The values of the first of these keys that has any.
    pub fn list(&self, keys: &[&str]) -> &[String] {
        let named =
            |key: &&str| self.0.iter().find(|(known, values)| known == key && !values.is_empty());
        keys.iter().find_map(named).map_or(&[], |(_, values)| values)
    }

    pub fn flag(&self, key: &str) -> bool {
        self.text(&[key])
            .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on"))
    }
}

/// The front matter of a file and what follows it.
pub fn split(text: &str) -> (FrontMatter, &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.starts_with('{')
        && let Some(found) = split_json(text)
    {
        return found;
    }
    for (fence, separator) in [("---", ':'), ("+++", '=')] {
        let Some(after) = text.strip_prefix(fence).and_then(rest_of_line) else { continue };
        let mut at = 0;
        for line in after.split_inclusive('\n') {
            let is_end = line.trim_end() == fence || (fence == "---" && line.trim_end() == "...");
            if is_end {
                return (read(&after[..at], separator), &after[at + line.len()..]);
            }
            at += line.len();
            if at > MAX_BYTES {
                break;
            }
        }
    }
    (FrontMatter::default(), text)
}

/// An object that ends with its line.
fn split_json(text: &str) -> Option<(FrontMatter, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Map<String, Json>>();
    let object = values.next()?.ok()?;
    let at = values.byte_offset();
    let body = rest_of_line(&text[at..]).or(text[at..].trim().is_empty().then_some(""))?;
    let known: Vec<(String, Json)> =
        object.into_iter().take(MAX_KEYS).map(|(key, value)| (key.to_lowercase(), value)).collect();
    let lists = known.iter().filter(|(_, value)| value.is_array()).map(|(key, _)| key.clone());
    let lists = lists.collect();
    let head = known.iter().map(|(key, value)| (key.clone(), texts_of(value))).collect();
    (at <= MAX_BYTES).then_some((FrontMatter(head, lists), body))
}

fn texts_of(value: &Json) -> Vec<String> {
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        _ => String::new(),
    };
    let mut values = Vec::new();
    match value {
        Json::Array(items) => items.iter().for_each(|item| push(&mut values, &text(item))),
        value => push(&mut values, &text(value)),
    }
    values
}

/// What follows the line's end, if nothing else stands on the line.
fn rest_of_line(text: &str) -> Option<&str> {
    let (line, rest) = text.split_once('\n')?;
    line.trim().is_empty().then_some(rest)
}

fn read(text: &str, separator: char) -> FrontMatter {
    let mut found = FrontMatter::default();
    let mut lines = text.lines().peekable();
    let mut is_looked_at = true;
    while let Some(line) = lines.next() {
        if separator == '=' && line.starts_with('[') {
            // Of the tables of TOML only the one that names tags holds what is looked for.
            is_looked_at = line.trim() == "[taxonomies]";
        }
        // Lines that are indented belong to a value.
        let is_own = !line.starts_with([' ', '\t', '#', '[', '-']);
        if !is_own || !is_looked_at || found.0.len() >= MAX_KEYS {
            continue;
        }
        let Some((key, value)) = line.split_once(separator) else { continue };
        let key = unquoted(key.trim()).to_lowercase();
        let value = without_comment(value.trim());
        let is_block = value.is_empty() || matches!(value, "|" | ">" | "|-" | ">-" | "|+" | ">+");
        if is_block {
            block(&mut found, key, value.is_empty(), &mut lines);
        } else if let Some(inner) = value.strip_prefix('[') {
            let mut inner = inner.to_owned();
            while !inner.contains(']') && inner.len() < MAX_BYTES {
                let Some(more) = lines.next() else { break };
                inner.push_str(without_comment(more.trim()));
            }
            let mut values = Vec::new();
            for item in items(inner.split(']').next().unwrap_or_default()) {
                push(&mut values, &item);
            }
            found.1.push(key.clone());
            found.0.push((key, values));
        } else {
            let mut values = Vec::new();
            push_plain(&mut values, &scalar(value, &mut lines));
            found.0.push((key, values));
        }
    }
    found
}

type Lines<'a> = std::iter::Peekable<std::str::Lines<'a>>;

/// What stands indented under a key: a list, texts with names of their own, or one text on several lines.
fn block(found: &mut FrontMatter, key: String, is_plain: bool, lines: &mut Lines<'_>) {
    let (mut values, mut named, mut folded) = (Vec::new(), Vec::new(), String::new());
    let mut is_list = false;
    while let Some(more) =
        lines.next_if(|line| line.trim().is_empty() || line.starts_with([' ', '\t', '-']))
    {
        let more = more.trim();
        let item = more.strip_prefix("- ").filter(|_| is_plain);
        let inner = more.split_once(": ").filter(|(name, _)| is_plain && is_name(name));
        match (item, inner) {
            (Some(item), _) => {
                is_list = true;
                let item = item.trim();
                push_plain(
                    &mut values,
                    without_comment(item.strip_prefix("name:").unwrap_or(item).trim()),
                );
            }
            (None, Some((name, value))) if !is_list => {
                named.push((
                    format!("{key}.{}", name.to_lowercase()),
                    unquoted(without_comment(value.trim())),
                ));
            }
            (None, _) => folded.extend([more, " "]),
        }
    }
    if is_list {
        found.1.push(key.clone());
    } else if named.is_empty() {
        push(&mut values, folded.trim());
    }
    found.0.push((key, values));
    found.0.extend(named.into_iter().map(|(name, value)| (name, vec![value])));
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}

/// A text in quotes may go on on the next lines.
fn scalar(value: &str, lines: &mut Lines<'_>) -> String {
    let mut text = value.to_owned();
    while let Some(quote @ ('"' | '\'')) = text.chars().next()
        && !text[1..].contains(quote)
        && text.len() < MAX_BYTES
    {
        let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) else { break };
        text.push(' ');
        text.push_str(more.trim());
    }
    text
}

/// A value without quotes may stand for none.
fn push_plain(values: &mut Vec<String>, value: &str) {
    if !matches!(value, "null" | "Null" | "~") {
        push(values, &unquoted(value));
    }
}

fn push(values: &mut Vec<String>, value: &str) {
    if !value.is_empty() && values.len() < MAX_ITEMS {
        values.push(value.to_owned());
    }
}

/// A `#` at the start or after a blank begins a comment, but not within quotes.
fn without_comment(value: &str) -> &str {
    let (mut before, mut quote, mut escaped) = (' ', None, false);
    for (at, c) in value.char_indices() {
        match quote {
            None if c == '#' && before.is_whitespace() => return value[..at].trim_end(),
            None if matches!(c, '"' | '\'') && matches!(before, ' ' | '[' | ',') => quote = Some(c),
            Some(open) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = quote == Some('"') && c == '\\' && !escaped;
        before = c;
    }
    value
}

/// The parts between commas that do not stand in quotes.
fn items(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match quote {
            None if c == ',' => all.push(String::new()),
            _ => {
                quote = match quote {
                    None => Some(c).filter(|c| matches!(c, '"' | '\'')),
                    Some(open) => Some(open).filter(|open| *open != c),
                };
                if let Some(last) = all.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    all.iter().map(|item| unquoted(item.trim())).collect()
}

fn unquoted(text: &str) -> String {
    for (quote, escape) in [('"', true), ('\'', false)] {
        let Some(rest) = text.strip_prefix(quote) else { continue };
        let mut plain = String::with_capacity(rest.len());
        let mut chars = rest.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if escape => match chars.next() {
                    Some('n') => plain.push('\n'),
                    Some('t') => plain.push('\t'),
                    Some(c) => plain.push(c),
                    None => {}
                },
                // A quote within single quotes is doubled.
                c if c == quote && !escape && chars.peek() == Some(&quote) => {
                    chars.next();
                    plain.push(quote);
                }
                c if c == quote => break,
                c => plain.push(c),
            }
        }
        return plain;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_at_the_head_of_a_file_is_read() {
        let text = "---\r\ntitle: \"A: \\\"B\\\" # C\" \r\nslug: a-b # not this\r\ntags: [one, 'two, three', \"it's\"]\r\n\
                    categories:\r\n  - Docs\r\n  - 'It''s more'\r\ndraft: true\r\ndescription: >\r\n  some\r\n  \
                    words\r\nextra:\r\n  title: no\r\n---\r\n# Body\r\n";
        let (head, body) = split(text);
        assert_eq!(head.text(&["title"]), Some("A: \"B\" # C"));
        assert_eq!(head.text(&["slug"]), Some("a-b"));
        assert_eq!(head.list(&["tags"]), ["one", "two, three", "it's"]);
        assert_eq!(head.list(&["category", "categories"]), ["Docs", "It's more"]);
        assert!(head.flag("draft"));
        assert_eq!(head.text(&["description"]), Some("some words"));
        assert_eq!(body, "# Body\r\n");
    }

    #[test]
    fn toml_at_the_head_of_a_file_is_read() {
        let text = "+++\ntitle = \"Über uns\"\ndate = 2025-01-31T12:00:00Z\ntags = [\n  \"a\", # first\n  \"b\",\n]\n\
                    [extra]\ntitle2 = \"x\"\n+++\nBody";
        let (head, body) = split(text);
        assert_eq!(head.text(&["title"]), Some("Über uns"));
        assert_eq!(head.text(&["date"]), Some("2025-01-31T12:00:00Z"));
        assert_eq!(head.list(&["tags"]), ["a", "b"]);
        assert_eq!(body, "Body");
    }

    #[test]
    fn what_is_nested_is_not_mistaken_for_a_text() {
        let text = "---\nauthor:\n  name: Ada\n  email: ada@x.org\nauthors:\n- name: Grace\n  url: /g\n- Kay\n\
                    slug: ~\ntitle: \"One\n  two\"\nsummary:\n  plain\n  text\n---\n";
        let (head, _) = split(text);
        assert_eq!(
            (head.text(&["author"]), head.text(&["author.email"])),
            (None, Some("ada@x.org"))
        );
        assert_eq!(head.list(&["authors"]), ["Grace", "Kay"]);
        assert_eq!((head.text(&["slug"]), head.text(&["title"])), (None, Some("One two")));
        assert_eq!(head.text(&["summary"]), Some("plain text"));
        let toml = "+++\ntitle = 'A'\n[menu.main]\nslug = 'x'\n[taxonomies]\ntags = ['t']\n+++\n";
        let (head, _) = split(toml);
        assert_eq!((head.text(&["slug"]), head.text(&["tags"])), (None, Some("t")));
    }

    #[test]
    fn json_at_the_head_of_a_file_is_read() {
        let (head, body) = split("{\"Title\": \"A\", \"tags\": [\"x\", 1], \"draft\": true}\nBody");
        assert_eq!((head.text(&["title"]), body), (Some("A"), "Body"));
        assert_eq!(head.list(&["tags"]), ["x", "1"]);
        assert!(head.flag("draft"));
        assert_eq!(split("{not json}\n").1, "{not json}\n");
        assert_eq!(split("{} and more").1, "{} and more");
    }

    #[test]
    fn a_file_without_a_head_is_all_body() {
        for text in ["", "# Title\n", "--- not one\n---\n", "---\nno end\n", "----\n----\n"] {
            assert_eq!(split(text), (FrontMatter::default(), text), "{text:?}");
        }
        let endless = format!("---\n{}", "a: b\n".repeat(100_000));
        assert_eq!(split(&endless).1.len(), endless.len());
    }

    #[test]
    fn nonsense_is_left_out() {
        let (head, body) = split("---\n: :\n[[[\nkey\nlist: [a, b\ntitle: 'x\n---\nB");
        assert_eq!(head.text(&["title"]), None);
        assert_eq!(body, "B");
        let _ = split("---\n\"\\\n'\nx: \"\\\n---\n");
    }
}
