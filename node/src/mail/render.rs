//! Templates: text with names in double braces, and nothing else: no conditions, no code. In HTML every value is
//! escaped. Pure.

enum Piece<'t> {
    Words(&'t str),
    Name(&'t str),
}

fn walk<'t>(
    template: &'t str,
    mut on: impl FnMut(Piece<'t>) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        on(Piece::Words(before))?;
        let (name, next) =
            after.split_once("}}").ok_or_else(|| "has {{ without }} after it".to_owned())?;
        on(Piece::Name(name.trim()))?;
        rest = next;
    }
    on(Piece::Words(rest))
}

/// # Errors
/// What is wrong with the template, to stand after its name.
pub(super) fn check(template: &str, known: &[&str]) -> Result<(), String> {
    walk(template, |piece| match piece {
        Piece::Name(name) if !known.contains(&name) => {
            Err(format!("names {name:?}; it can name {}", known.join(", ")))
        }
        _ => Ok(()),
    })
}

pub(super) fn text(template: &str, values: &[(&'static str, String)]) -> Result<String, String> {
    fill(template, values, |filled, value| filled.push_str(value))
}

pub(super) fn html(template: &str, values: &[(&'static str, String)]) -> Result<String, String> {
    fill(template, values, escape)
}

/// For a header: whatever came into it, it is one line and no other header.
pub(super) fn line(template: &str, values: &[(&'static str, String)]) -> Result<String, String> {
    let filled = text(template, values)?;
    let blank = |c: char| if c.is_control() || c.is_whitespace() { ' ' } else { c };
    let words: String = filled.chars().map(blank).take(200).collect();
    Ok(words.trim().to_owned())
}

fn fill(
    template: &str,
    values: &[(&'static str, String)],
    put: impl Fn(&mut String, &str),
) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    walk(template, |piece| {
        match piece {
            Piece::Words(words) => filled.push_str(words),
            Piece::Name(name) => {
                let value = values.iter().find(|(known, _)| *known == name);
                let (_, value) =
                    value.ok_or_else(|| format!("names {name:?}, which has no value"))?;
                put(&mut filled, value);
            }
        }
        Ok(())
    })?;
    Ok(filled)
}

fn escape(html: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<(&'static str, String)> {
        vec![("name", "<b>\"Ada\" & co</b>".to_owned()), ("site", "A\r\nBcc: eve@x".to_owned())]
    }

    #[test]
    fn values_are_escaped_in_html_and_only_there() {
        let html = html("<p>{{ name }}</p>", &values());
        assert_eq!(html.as_deref(), Ok("<p>&lt;b&gt;&quot;Ada&quot; &amp; co&lt;/b&gt;</p>"));
        assert_eq!(text("{{name}}!", &values()).as_deref(), Ok("<b>\"Ada\" & co</b>!"));
    }

    #[test]
    fn a_value_is_not_a_template() {
        let values = [("name", "{{site}}".to_owned()), ("site", "x".to_owned())];
        assert_eq!(text("{{name}}", &values).as_deref(), Ok("{{site}}"));
    }

    #[test]
    fn a_subject_is_one_line_whatever_is_in_it() {
        let line = line("Hello\n{{site}}", &values()).unwrap();
        assert_eq!(line, "Hello A  Bcc: eve@x");
        assert!(!line.chars().any(char::is_control));
    }

    #[test]
    fn what_a_template_cannot_name_is_told() {
        assert_eq!(check("{{name}} {{ site }} {}", &["name", "site"]), Ok(()));
        assert!(check("{{password}}", &["name"]).unwrap_err().contains("password"));
        assert!(check("{{name", &["name"]).is_err());
        assert!(text("{{nobody}}", &values()).is_err());
    }
}
