//! Peers in front of people.

use super::{table, text};
use serde_json::Value as Json;

pub fn all(peers: &Json) {
    if peers.as_array().is_some_and(Vec::is_empty) {
        say!("This node knows no other. `atoll peer ticket` lets one join.");
        return;
    }
    let columns = [
        ("name", "NAME"),
        ("state", "STATE"),
        ("behind_ops", "BEHIND"),
        ("ahead_ops", "AHEAD"),
        ("contact_at", "LAST CONTACT"),
        ("address", "ADDRESS"),
        ("node", "NODE"),
        ("reason", "WHY"),
    ];
    table(peers, &columns);
    for peer in peers.as_array().into_iter().flatten() {
        beside(peer).iter().for_each(|line| say!("{line}"));
    }
}

/// What no column has room for.
fn beside(peer: &Json) -> Vec<String> {
    let name = text(&peer["name"]);
    let mut lines = Vec::new();
    if let Some(clock) = peer["clock"].as_str() {
        lines.push(format!("{name}: {clock}"));
    }
    if peer["is_limited"] == true {
        lines.push(format!("{name} {} here.", text(&peer["may"])));
        if let Some(lets) = peer["lets"].as_str() {
            lines.push(format!("On {name}, this node {lets}."));
        }
    }
    if peer["refused_ops"].as_u64().is_some_and(|ops| ops > 0) {
        lines.push(format!(
            "{} ops that came from {name} were refused.",
            text(&peer["refused_ops"])
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_clock_that_is_off_is_told_beside_the_table() {
        let off = json!({ "name": "reef", "clock": "Its clock is 5 hours ahead of this one's." });
        assert_eq!(beside(&off), ["reef: Its clock is 5 hours ahead of this one's."]);
        let right = json!({ "name": "reef", "clock": null, "is_limited": false, "refused_ops": 0 });
        assert!(beside(&right).is_empty());
        let limited =
            json!({ "name": "reef", "is_limited": true, "may": "may read", "refused_ops": 3 });
        let told = ["reef may read here.", "3 ops that came from reef were refused."];
        assert_eq!(beside(&limited), told);
    }
}
