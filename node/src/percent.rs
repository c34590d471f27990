//! Percent signs in addresses: the one place that resolves them and writes them. Never guesses: what is broken is none.

/// `+` is a blank in a query and a plus in a path. None for broken UTF-8 or a broken escape.
pub fn decode(text: &str, plus_is_blank: bool) -> Option<String> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                (high * 16 + low) as u8
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What may stand in a path segment or a query value as it is; the rest is escaped.
pub fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_what_is_broken_is_refused() {
        assert_eq!(decode(&encode("ä/ß? +"), false).as_deref(), Some("ä/ß? +"));
        assert_eq!(decode("a+b%2b", true).as_deref(), Some("a b+"));
        for broken in ["%", "%e", "%zz", "%ff", "%c3%28"] {
            assert_eq!(decode(broken, false), None, "{broken}");
        }
    }
}
