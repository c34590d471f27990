//! Brings the settings together: the file, the `ATOLL_*` variables, the flags. Checks the file as a whole, so that
//! one mistake does not hide another.

use crate::failure::{Failure, Outcome};
use crate::flags::SettingFlags;
use atoll_node::config::{Given, Loaded, SETTINGS, Setting, Source};
use atoll_node::runtime::kept_name;
use std::path::{Path, PathBuf};

const FILE: &str = "atoll.toml";
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Variables that are no settings.
const OTHER_VARIABLES: [&str; 2] = ["ATOLL_CONFIG", "ATOLL_ADMIN_PASSWORD"];

/// The settings in force.
///
/// # Errors
/// Every mistake in one message, with exit code 2.
pub fn load(flags: &SettingFlags) -> Outcome<Loaded> {
    let mut given = Vec::new();
    let mut mistakes = Vec::new();
    if let Some((path, text)) = read_file(flags)? {
        match file_values(&path, &text) {
            Ok(values) => given.extend(values),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    given.extend(variables(std::env::vars_os()));
    match flags.given() {
        Ok(values) => given.extend(values),
        Err(mistake) => mistakes.push(mistake),
    }
    match Loaded::new(given.clone()) {
        Ok(loaded) if mistakes.is_empty() => with_kept_name(loaded, given),
        Ok(_) => Err(Failure::usage(mistakes.join("\n"))),
        Err(more) => {
            mistakes.extend(more);
            Err(Failure::usage(mistakes.join("\n")))
        }
    }
}

/// The data folder is a setting itself: what it keeps is laid in once it is known.
fn with_kept_name(loaded: Loaded, mut given: Vec<Given>) -> Outcome<Loaded> {
    let data = &loaded.config.data;
    let kept = kept_name(data).map_err(|error| Failure::io("read the name in", data, &error))?;
    let Some(value) = kept else { return Ok(loaded) };
    let origin = format!("the name in {}", data.display());
    given.push(Given { source: Source::Folder, origin, name: "name".to_owned(), value });
    Loaded::new(given).map_err(|mistakes| Failure::usage(mistakes.join("\n")))
}

fn read_file(flags: &SettingFlags) -> Outcome<Option<(PathBuf, String)>> {
    let named =
        flags.config.clone().or_else(|| std::env::var_os("ATOLL_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE));
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::io("read", &path, &error)),
    };
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{} is too large for a configuration", path.display())));
    }
    let text =
        std::fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    Ok(Some((path, text)))
}

/// The file's values by their full names; tables are joined with a dot.
fn file_values(path: &Path, text: &str) -> Result<Vec<Given>, String> {
    let table: toml::Table =
        text.parse().map_err(|error| format!("{}: {}", path.display(), one_line(&error)))?;
    let mut given = Vec::new();
    flatten(path, "", &table, &mut given)?;
    Ok(given)
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn flatten(
    path: &Path,
    prefix: &str,
    table: &toml::Table,
    given: &mut Vec<Given>,
) -> Result<(), String> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let value = match value {
            toml::Value::Table(inner) => {
                flatten(path, &name, inner, given)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            other => {
                let what = other.type_str();
                return Err(format!(
                    "{}: `{name}` is a {what}; no setting takes one",
                    path.display()
                ));
            }
        };
        given.push(Given { source: Source::File, origin: path.display().to_string(), name, value });
    }
    Ok(())
}

/// Of `ATOLL_*` variables, also those that are spelled almost like a setting's: a misspelt one must not be passed
/// over. Others are other programs'.
fn variables(
    all: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> impl Iterator<Item = Given> {
    all.filter_map(|(variable, value)| {
        let variable = variable.into_string().ok()?;
        if !variable.starts_with("ATOLL_") || OTHER_VARIABLES.contains(&variable.as_str()) {
            return None;
        }
        let name = match SETTINGS.iter().find(|setting| setting.variable() == variable) {
            Some(setting) => setting.name.to_owned(),
            None => {
                let unknown = variable["ATOLL_".len()..].to_ascii_lowercase();
                Setting::nearest(&unknown).map(|_| unknown)?
            }
        };
        let value = value.to_string_lossy().into_owned();
        Some(Given { source: Source::Variable, origin: variable, name, value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_joined_with_a_dot_and_lists_are_refused() {
        let path = Path::new("atoll.toml");
        let given = file_values(path, "name = 'x'\n[limits]\nrate = 7\n").unwrap();
        let mut pairs: Vec<_> = given.iter().map(|g| (g.name.as_str(), g.value.as_str())).collect();
        pairs.sort_unstable(); // whether a table keeps its order is a feature that any crate of a build may turn on
        assert_eq!(pairs, [("limits.rate", "7"), ("name", "x")]);
        assert!(file_values(path, "name = [1]").unwrap_err().contains("`name` is a array"));
        assert!(
            file_values(path, "name = ").unwrap_err().starts_with("atoll.toml: TOML parse error")
        );
    }

    #[test]
    fn a_misspelt_variable_is_not_passed_over() {
        let vars = [
            ("ATOLL_LIMITS_RATE", "7"),
            ("ATOLL_LISTENN", "x"),
            ("ATOLL_CONFIG", "f"),
            ("HOME", "/"),
        ];
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into()));
        let names: Vec<_> = variables(vars).map(|given| given.name).collect();
        assert_eq!(names, ["limits.rate", "listenn"]);
    }
}
