//! A configuration with the source of each of its values: what was given, laid over the defaults.

use super::{Config, SETTINGS, Setting};

/// Where a value came from, the strongest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    Default,
    File,
    Variable,
    Flag,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Variable => "variable",
            Self::Flag => "flag",
        }
    }
}

/// A value that somebody gave. `origin` is for error messages: `atoll.toml, line 3`, `ATOLL_LISTEN`, `--listen`.
#[derive(Clone, Debug)]
pub struct Given {
    pub source: Source,
    pub origin: String,
    pub name: String,
    pub value: String,
}

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    sources: Vec<Source>,
}

impl Loaded {
    /// Lays what was given over the defaults, the weakest source first.
    ///
    /// # Errors
    /// Every mistake, each a sentence that names its place.
    pub fn new(mut given: Vec<Given>) -> Result<Self, Vec<String>> {
        given.sort_by_key(|given| given.source);
        let mut loaded =
            Self { config: Config::default(), sources: vec![Source::Default; SETTINGS.len()] };
        let mistakes: Vec<String> =
            given.iter().filter_map(|given| loaded.lay(given).err()).collect();
        if mistakes.is_empty() { Ok(loaded) } else { Err(mistakes) }
    }

    fn lay(&mut self, given: &Given) -> Result<(), String> {
        let Some(at) = SETTINGS.iter().position(|setting| setting.name == given.name) else {
            let hint = Setting::nearest(&given.name)
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(format!("{}: there is no setting `{}`{hint}", given.origin, given.name));
        };
        SETTINGS[at]
            .set(&mut self.config, &given.value)
            .map_err(|why| format!("{}: `{}`: {why}", given.origin, given.name))?;
        self.sources[at] = given.source;
        Ok(())
    }

    /// Name, value and source of every setting, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, String, Source)> + '_ {
        let row = |(setting, source): (&'static Setting, &Source)| {
            (setting.name, setting.show(&self.config), *source)
        };
        SETTINGS.iter().zip(&self.sources).map(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(source: Source, name: &str, value: &str) -> Given {
        let (name, value) = (name.to_owned(), value.to_owned());
        Given { source, origin: source.name().to_owned(), name, value }
    }

    #[test]
    fn a_flag_stands_over_a_variable_and_a_variable_over_the_file() {
        let loaded = Loaded::new(vec![
            given(Source::Flag, "name", "flag"),
            given(Source::File, "name", "file"),
            given(Source::File, "limits.rate", "7"),
            given(Source::Variable, "name", "variable"),
            given(Source::Variable, "limits.rate", "8"),
            given(Source::File, "log", "json"),
        ])
        .unwrap();
        assert_eq!((loaded.config.name.as_str(), loaded.config.limits.rate), ("flag", 8));
        let source = |name: &str| loaded.rows().find(|row| row.0 == name).map(|row| row.2);
        assert_eq!(source("name"), Some(Source::Flag));
        assert_eq!(source("limits.rate"), Some(Source::Variable));
        assert_eq!(source("log"), Some(Source::File));
        assert_eq!(source("listen"), Some(Source::Default));
    }

    #[test]
    fn an_unknown_setting_names_the_nearest_and_all_mistakes_are_told() {
        let mistakes = Loaded::new(vec![
            given(Source::File, "lisen", "x"),
            given(Source::File, "limits.rate", "1000001"),
            given(Source::Flag, "listen", "here"),
        ])
        .unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].contains("did you mean `listen`?"), "{mistakes:?}");
        assert!(mistakes[1].contains("from 0 to 1000000"), "{mistakes:?}");
        assert_eq!(Setting::nearest("something_else_entirely"), None);
    }
}
