//! How the value of a setting is read from text, and written back. Knows no setting.

use super::{LogFormat, Origins, Policies, Secret};
use crate::blob::policy::Policy;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// How a value is written in the file, without quotes.
pub(super) trait Show {
    fn show(&self) -> String;
}

macro_rules! show_as_text {
    ($($ty:ty),*) => { $(impl Show for $ty {
        fn show(&self) -> String {
            self.to_string()
        }
    })* };
}

show_as_text!(String, SocketAddr, bool, u32, u64, usize);

impl Show for Secret {
    /// With three asterisks in the place of the password.
    fn show(&self) -> String {
        let masked = || {
            let (scheme, rest) = self.0.split_once("://")?;
            let (login, host) = rest.rsplit_once('@')?;
            let user = login.split(':').next().unwrap_or_default();
            Some(format!("{scheme}://{user}:***@{host}"))
        };
        masked().unwrap_or_else(|| self.0.clone())
    }
}

impl Show for PathBuf {
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Show for Origins {
    fn show(&self) -> String {
        self.0.join(", ")
    }
}

impl Show for Vec<String> {
    fn show(&self) -> String {
        self.join(", ")
    }
}

impl Show for Policies {
    fn show(&self) -> String {
        let shown = self.0.iter().map(|(scope, policy)| format!("{scope}={}", policy.name()));
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Show for LogFormat {
    fn show(&self) -> String {
        match self {
            Self::Pretty => "pretty".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

pub(super) fn shown(value: &impl Show) -> String {
    value.show()
}

pub(super) fn parsed<T: FromStr<Err: Display>>(value: &str) -> Result<T, String> {
    value.trim().parse().map_err(|error| format!("{value:?}: {error}"))
}

pub(super) fn within<T: FromStr<Err: Display> + PartialOrd>(
    value: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let number: T = parsed(value)?;
    if number < least || number > most {
        Err(format!("{value} is out of range"))
    } else {
        Ok(number)
    }
}

pub(super) fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(PathBuf::from(value)) }
}

/// Nothing stands for a place inside the data folder.
pub(super) fn folder(value: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(value.trim()))
}

pub(super) fn text(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value.to_owned()) }
}

pub(super) fn name(value: &str) -> Result<String, String> {
    let value = value.trim();
    let is_fit =
        !value.is_empty() && value.chars().count() <= 60 && !value.chars().any(char::is_control);
    if is_fit { Ok(value.to_owned()) } else { Err(format!("{value:?} is no fit name")) }
}

pub(super) fn url(value: &str) -> Result<String, String> {
    let value = value.trim().trim_end_matches('/');
    let is_http = value.starts_with("http://") || value.starts_with("https://");
    if value.is_empty() || is_http {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is no such URL"))
    }
}

pub(super) fn origins(value: &str) -> Result<Origins, String> {
    let all = value.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    let one = |origin: &str| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let fits = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        let is_fit = host.is_some_and(|host| !host.is_empty() && host.chars().all(fits));
        if origin == "*" || is_fit {
            Ok(origin.to_ascii_lowercase())
        } else {
            Err(format!("{origin:?} is no origin: scheme and host, without a path"))
        }
    };
    Ok(Origins(all.map(one).collect::<Result<_, _>>()?))
}

pub(super) fn post_path(value: &str) -> Result<String, String> {
    let value = value.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~{}?=&".contains(c);
    let is_fit = value.starts_with('/')
        && !value.starts_with("//")
        && value.chars().all(fits)
        && (value.contains("{slug}") || value.contains("{id}"));
    if is_fit { Ok(value.to_owned()) } else { Err(format!("{value:?} is no such path")) }
}

pub(super) fn email(value: &str) -> Result<String, String> {
    let is_fit =
        value.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if is_fit { Ok(value.trim().to_owned()) } else { Err(format!("{value:?} is no address")) }
}

pub(super) fn mail_server(value: &str) -> Result<Secret, String> {
    let value = value.trim();
    let rest = value.strip_prefix("smtp://").or_else(|| value.strip_prefix("smtps://"));
    // The value is not repeated in the message: it may hold a password.
    match rest {
        None if !value.is_empty() => Err("it is no URL of a mail server".to_owned()),
        Some("") => Err("it names no host".to_owned()),
        _ => Ok(Secret(value.to_owned())),
    }
}

pub(super) fn sender(value: &str) -> Result<String, String> {
    let value = value.trim();
    if crate::mail::is_mailbox(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is no sender"))
    }
}

pub(super) fn host_and_port(value: &str) -> Result<String, String> {
    let is_fit = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if value.is_empty() || is_fit(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} has no host and port"))
    }
}

pub(super) fn hosts(value: &str) -> Result<Vec<String>, String> {
    let named = value.split(',').map(str::trim).filter(|host| !host.is_empty());
    let fits = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
    let hosts: Vec<String> =
        named.map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase()).collect();
    match hosts.iter().find(|host| !host.chars().all(fits)) {
        Some(odd) => Err(format!("{odd:?} is no host")),
        None => Ok(hosts),
    }
}

pub(super) fn rules(value: &str) -> Result<Vec<String>, String> {
    let named = value.split(',').map(str::trim).filter(|rule| !rule.is_empty());
    let rules: Vec<String> = named.map(str::to_owned).collect();
    let sound = atoll_storage::Carries::parse(rules.iter().map(String::as_str), |_| None);
    sound.map(|_| rules).map_err(|error| error.to_string())
}

pub(super) fn log_format(value: &str) -> Result<LogFormat, String> {
    match value {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{value:?} is no form of log lines")),
    }
}

pub(super) fn policies(value: &str) -> Result<Policies, String> {
    let named = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let one = |entry: &str| {
        let (scope, policy) = entry.split_once('=')?;
        let scope = scope.trim();
        let is_scope = crate::kinds::ALL.iter().any(|kind| kind.scope == scope);
        Some((scope.to_owned(), Policy::parse(policy.trim())?)).filter(|_| is_scope)
    };
    let read = |entry| one(entry).ok_or_else(|| format!("{entry:?} is no policy of a scope"));
    Ok(Policies(named.map(read).collect::<Result<_, _>>()?))
}
