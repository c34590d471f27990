use super::*;
use clap::CommandFactory;

/// Of a flag that a command has and every command has too, clap gives the value of one to both.
#[test]
fn no_command_has_a_flag_of_the_name_of_one_for_all() {
    let root = Flags::command();
    let for_all: Vec<String> = root
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .map(|arg| arg.get_id().to_string())
        .collect();
    assert!(for_all.contains(&"log".to_owned()));
    let (mut left, mut shared) = (vec![(String::new(), &root)], Vec::new());
    while let Some((path, command)) = left.pop() {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            let own = below.get_arguments().map(|arg| arg.get_id().as_str());
            let doubled = own.filter(|id| for_all.iter().any(|name| name == id));
            shared.extend(doubled.map(|id| format!("{path} {id}")));
            left.push((path, below));
        }
    }
    assert_eq!(shared, [" peer add name"], "`Flags::take_settings` must know each of them");
}

#[test]
fn the_name_of_a_peer_is_not_that_of_the_node() {
    let mut flags =
        Flags::try_parse_from(["atoll", "peer", "add", "key", "--name", "core"]).unwrap();
    assert!(flags.take_settings().name.is_none());
    let Command::Peer(Peer::Add(add)) = &flags.command else { panic!("it is peer add") };
    assert_eq!(add.name.as_deref(), Some("core"));
    let mut flags = Flags::try_parse_from(["atoll", "serve", "--name", "core"]).unwrap();
    assert_eq!(flags.take_settings().name.as_deref(), Some("core"));
}
