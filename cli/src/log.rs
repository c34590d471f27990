//! Log lines on standard error, in the form and as many as the settings say.

use crate::failure::{Failure, Outcome};
use atoll_node::config::{Loaded, LogFormat, Source};
use tracing_subscriber::EnvFilter;

/// `serve` logs what happens; other commands only what went wrong, unless they are told otherwise.
pub fn begin(loaded: &Loaded, is_server: bool) -> Outcome {
    let config = &loaded.config;
    let is_default =
        loaded.rows().any(|(name, _, source)| name == "log_level" && source == Source::Default);
    let level = if is_default && !is_server { "error" } else { config.log_level.as_str() };
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Failure::usage(format!("log_level: {level:?} is not understood: {error}"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A standard error that is gone must not end whoever had something to say.
    let builder = builder.log_internal_errors(false);
    let begun = match config.log {
        LogFormat::Pretty => builder.with_target(false).with_ansi(is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second call within one process keeps the first.
    let _ = begun;
    Ok(())
}

fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal()
}
