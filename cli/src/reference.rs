//! The pages of docs/ that are made from this program: the commands from clap's declaration, the settings from their
//! table. `atoll reference PAGE` prints one; a test finds the files stale.

use crate::flags::{EXIT_CODES, Flags, ReferencePage};
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;

pub fn page(page: ReferencePage) -> String {
    match page {
        ReferencePage::Cli => commands(),
        ReferencePage::Config => atoll_node::config::reference(),
    }
}

fn commands() -> String {
    let mut root = Flags::command();
    root.build();
    let mut text = String::from(
        "# Commands\n\nMade from the declaration in `cli/src/flags.rs`; do not edit.\n\n",
    );
    let about = root.get_long_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "{about}\n\n{EXIT_CODES}.\n");
    text.push_str(
        "While `serve` runs, the other commands reach it through its data folder: over a port on loopback, with a token \
         in a file that only the folder's owner can read. Without it they open the folder themselves.\n\n\
         ## For every command\n\n",
    );
    options(&mut text, root.get_arguments().filter(|arg| arg.is_global_set() && !is_help(arg)));
    for command in root.get_subcommands() {
        describe(&mut text, command, "atoll");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn describe(text: &mut String, command: &Command, path: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{path} {}", command.get_name());
    if command.has_subcommands() {
        command.get_subcommands().for_each(|inner| describe(text, inner, &name));
        return;
    }
    let own = || command.get_arguments().filter(|arg| !arg.is_global_set() && !is_help(arg));
    let places: Vec<String> =
        own().filter(|arg| arg.is_positional()).map(|arg| format!(" {}", shown(arg))).collect();
    let _ = writeln!(text, "## `{name}{}`\n", places.concat());
    let about = command.get_long_about().or(command.get_about());
    let _ = writeln!(
        text,
        "{}.\n",
        about.map(ToString::to_string).unwrap_or_default().trim_end_matches('.')
    );
    options(text, own());
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn options<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let mut any = false;
    for arg in args {
        any = true;
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default =
            arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let default = default.filter(|_| arg.get_action().takes_values());
        let default = default.map_or_else(String::new, |value| format!(" [default: {value}]"));
        let _ = writeln!(
            text,
            "- `{}`{}{help}{default}",
            shown(arg),
            if help.is_empty() { "" } else { ": " }
        );
    }
    if any {
        text.push('\n');
    }
}

/// `--hours <HOURS>`, or `TICKET` for what has no name.
fn shown(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.unwrap_or_else(|| arg.get_id().as_str().to_ascii_uppercase());
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_reference_pages_in_docs_are_those_of_this_program() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (file, page, name) in
            [("CLI.md", ReferencePage::Cli, "cli"), ("CONFIG.md", ReferencePage::Config, "config")]
        {
            let there = std::fs::read_to_string(docs.join(file)).unwrap_or_default();
            assert!(
                there == super::page(page),
                "docs/{file} is stale: run `cargo run -- reference {name} > docs/{file}`"
            );
        }
    }

    #[test]
    fn the_declaration_of_the_flags_is_sound() {
        Flags::command().debug_assert();
    }
}
