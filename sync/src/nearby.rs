//! Nodes on the same network, found by multicast DNS. What is heard is a rumour: it is bounded and cleaned, it lets
//! nobody in, and an address that it names is dialled for a known key only, which must be proved there as anywhere.

use crate::message::Hello;
use atoll_storage::NodeId;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What nodes announce themselves as.
const SERVICE: &str = "_atoll-sync._udp.local.";
/// Nodes that are not known and are remembered. Known ones always are.
const MAX_STRANGERS: usize = 64;
const MAX_ADDRS: usize = 8;
/// How often one node's change of address is a reason to dial it.
const CHANGES_EVERY: Duration = Duration::from_secs(2);
const NAME: &str = "name";

/// A node that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub node: NodeId,
    /// As it calls itself; anybody can call himself so.
    pub name: String,
    pub addrs: Vec<SocketAddr>,
}

struct Entry {
    heard: Heard,
    changed: Instant,
}

/// Who is asked, and who is told, about what was heard.
pub struct Ears {
    pub is_known: Box<dyn Fn(NodeId) -> bool + Send>,
    /// A known node is there, or at another address.
    pub appeared: Box<dyn Fn(NodeId) + Send>,
}

/// Announces this node and listens for others, until it is dropped.
pub struct Nearby {
    daemon: ServiceDaemon,
    heard: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
}

impl Nearby {
    /// # Errors
    /// Why this system cannot announce or listen, in plain words.
    pub fn start(me: NodeId, name: &str, listen: SocketAddr, ears: Ears) -> Result<Self, String> {
        let failed = |error: mdns_sd::Error| format!("other nodes cannot be looked for: {error}");
        let daemon = ServiceDaemon::new().map_err(failed)?;
        let events = daemon.browse(SERVICE).map_err(failed)?;
        daemon.register(announcement(me, name, listen).map_err(failed)?).map_err(failed)?;
        let heard: Arc<Mutex<BTreeMap<NodeId, Entry>>> = Arc::default();
        let hearing = heard.clone();
        let listen = move || {
            // Ends with the daemon.
            while let Ok(event) = events.recv() {
                take(&hearing, event, me, &ears);
            }
        };
        let thread = std::thread::Builder::new().name("atoll-nearby".to_owned());
        thread.spawn(listen).map_err(|error| format!("no thread could be started: {error}"))?;
        Ok(Self { daemon, heard })
    }

    pub fn list(&self) -> Vec<Heard> {
        locked(&self.heard).values().map(|entry| entry.heard.clone()).collect()
    }

    /// Where a node was heard last; empty if it was not.
    pub fn addrs_of(&self, node: NodeId) -> Vec<SocketAddr> {
        locked(&self.heard).get(&node).map(|entry| entry.heard.addrs.clone()).unwrap_or_default()
    }
}

impl Nearby {
    /// Tells others that this node goes, and listens no more. If that was done already, nothing is left to do.
    pub fn stop(&self) {
        let _ = self.daemon.shutdown();
    }
}

impl Drop for Nearby {
    fn drop(&mut self) {
        self.stop();
    }
}

fn locked(heard: &Mutex<BTreeMap<NodeId, Entry>>) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn announcement(me: NodeId, name: &str, listen: SocketAddr) -> mdns_sd::Result<ServiceInfo> {
    let instance = me.to_string();
    let host = format!("{instance}.local.");
    let name = Hello::short_name(name);
    let properties = [(NAME, name.as_str())];
    // A node that listens at one address is not to be found at another.
    if listen.ip().is_unspecified() {
        let info = ServiceInfo::new(SERVICE, &instance, &host, (), listen.port(), &properties[..])?;
        return Ok(info.enable_addr_auto());
    }
    ServiceInfo::new(SERVICE, &instance, &host, listen.ip(), listen.port(), &properties[..])
}

fn take(heard: &Mutex<BTreeMap<NodeId, Entry>>, event: ServiceEvent, me: NodeId, ears: &Ears) {
    match event {
        ServiceEvent::ServiceResolved(found) => {
            let Some(found) = heard_of(&found).filter(|found| found.node != me) else { return };
            let (node, is_known) = (found.node, (ears.is_known)(found.node));
            if note(&mut locked(heard), found, is_known, Instant::now()) && is_known {
                (ears.appeared)(node);
            }
        }
        ServiceEvent::ServiceRemoved(_, fullname) => {
            if let Some(node) = node_of(&fullname) {
                locked(heard).remove(&node);
            }
        }
        _ => {}
    }
}

/// True if it is new, or at another address. One that changes all the time is not followed.
fn note(heard: &mut BTreeMap<NodeId, Entry>, found: Heard, is_known: bool, now: Instant) -> bool {
    if let Some(entry) = heard.get_mut(&found.node) {
        if entry.heard == found || now.duration_since(entry.changed) < CHANGES_EVERY {
            return false;
        }
        let has_moved = entry.heard.addrs != found.addrs;
        *entry = Entry { heard: found, changed: now };
        return has_moved;
    }
    if !is_known && heard.len() >= MAX_STRANGERS {
        return false;
    }
    heard.insert(found.node, Entry { heard: found, changed: now });
    true
}

fn node_of(fullname: &str) -> Option<NodeId> {
    NodeId::parse(fullname.split('.').next()?)
}

/// None of what no node would announce.
fn heard_of(found: &ResolvedService) -> Option<Heard> {
    let node = node_of(found.get_fullname())?;
    let mut addrs: Vec<SocketAddr> = found
        .get_addresses()
        .iter()
        .map(mdns_sd::ScopedIp::to_ip_addr)
        .filter(is_dialled)
        .map(|ip| SocketAddr::new(ip, found.get_port()))
        .collect();
    // Those of the older kind first: they are the ones that work.
    addrs.sort_by_key(|addr| (addr.is_ipv6(), *addr));
    addrs.truncate(MAX_ADDRS);
    let name = found.get_property_val_str(NAME).unwrap_or_default();
    let is_there = !addrs.is_empty() && found.get_port() != 0;
    is_there.then(|| Heard { node, name: Hello::short_name(name), addrs })
}

/// Addresses that hold on one interface only say too little.
fn is_dialled(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(node: u8, port: u16) -> Heard {
        let addrs = vec![SocketAddr::from(([192, 0, 2, node], port))];
        Heard { node: NodeId([node; 16]), name: "reef".to_owned(), addrs }
    }

    #[test]
    fn strangers_are_bounded_and_known_nodes_always_have_room() {
        let (mut all, now) = (BTreeMap::new(), Instant::now());
        let taken = (0..100).filter(|n| note(&mut all, heard(*n, 1), false, now)).count();
        assert_eq!((taken, all.len()), (MAX_STRANGERS, MAX_STRANGERS));
        assert!(note(&mut all, heard(200, 1), true, now));
    }

    #[test]
    fn a_node_that_moves_all_the_time_is_not_followed() {
        let (mut all, now) = (BTreeMap::new(), Instant::now());
        assert!(note(&mut all, heard(1, 1), true, now));
        assert!(!note(&mut all, heard(1, 1), true, now + CHANGES_EVERY));
        assert!(!note(&mut all, heard(1, 2), true, now));
        assert!(note(&mut all, heard(1, 2), true, now + CHANGES_EVERY));
    }

    #[test]
    fn what_is_heard_is_cleaned() {
        let info = |name: &str, ips: &str, port: u16| {
            let id = NodeId([7; 16]).to_string();
            let properties = [(NAME, name)];
            ServiceInfo::new(SERVICE, &id, &format!("{id}.local."), ips, port, &properties[..])
                .unwrap()
                .as_resolved_service()
        };
        let long = "x".repeat(200);
        let found =
            heard_of(&info(&format!("\u{1b}[31m{long}"), "192.0.2.1,224.0.0.1", 9)).unwrap();
        assert!(found.name.starts_with("[31mxx") && found.name.len() < 100, "{found:?}");
        assert_eq!(found.addrs, [SocketAddr::from(([192, 0, 2, 1], 9))]);
        assert_eq!(heard_of(&info("a", "192.0.2.1", 0)), None);
        assert_eq!(node_of("somebody._atoll-sync._udp.local."), None);
    }
}
