//! What was given, laid over the defaults, and where each value came from.

use super::{Config, SETTINGS, Setting};

/// Where a value came from, the strongest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    Default,
    /// The data folder, which keeps the name of its node.
    Folder,
    File,
    Variable,
    Flag,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Folder => "folder",
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

    /// Where the value of a setting came from.
    pub fn source(&self, name: &str) -> Source {
        let at = SETTINGS.iter().position(|setting| setting.name == name);
        at.map_or(Source::Default, |at| self.sources[at])
    }

    /// Name, value and source of every setting, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, String, Source)> + '_ {
        let row = |(setting, source): (&'static Setting, &Source)| {
            (setting.name, setting.show(&self.config), *source)
        };
        SETTINGS.iter().zip(&self.sources).map(row)
    }
}
