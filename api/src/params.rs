//! The query string of a request: decoded once, bounded, each name at most once.

use crate::problem::Problem;
use atoll_node::percent::decode;

const MAX_PARAMS: usize = 50;

#[derive(Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    raw: String,
}

impl Params {
    /// # Errors
    /// 400 for broken UTF-8, a name that stands twice, or too many names.
    pub fn read(query: Option<&str>) -> Result<Self, Problem> {
        let Some(query) = query.filter(|query| !query.is_empty()) else {
            return Ok(Self::default());
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name, true).ok_or_else(broken)?;
            let value = decode(value, true).ok_or_else(broken)?;
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::parameter(&name, "repeated", "stands more than once"));
            }
            if pairs.len() == MAX_PARAMS {
                return Err(Problem::malformed("too many query parameters: at most 50"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs, raw: query.to_owned() })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The query string as it came, less the cursor.
    pub fn without_cursor(&self) -> String {
        let keep = |part: &&str| part.split('=').next() != Some("cursor");
        self.raw.split('&').filter(keep).collect::<Vec<_>>().join("&")
    }
}

fn broken() -> Problem {
    Problem::malformed("the query string is not UTF-8 under its percent signs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_string_is_decoded_and_a_repeated_name_is_refused() {
        let params = Params::read(Some("q=a+b%20c&flag&cursor=x&limit=5")).unwrap_or_default();
        assert_eq!(params.get("q"), Some("a b c"));
        assert_eq!(params.get("flag"), Some(""));
        assert_eq!(params.without_cursor(), "q=a+b%20c&flag&limit=5");
        assert_eq!(Params::read(Some("a=1&a=2")).unwrap_err().errors()[0].field, "a");
    }

    #[test]
    fn broken_utf8_and_broken_escapes_are_refused() {
        for query in ["q=%ff", "q=%zz", "q=%e", "%c3%28=1"] {
            assert_eq!(Params::read(Some(query)).unwrap_err().status(), 400, "{query}");
        }
    }
}
