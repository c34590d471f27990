//! The three nodes of the demo: how they start, join, are cut off and meet again.

use crate::failure::{Failure, Outcome};
use crate::serve::{Running, listen};
use atoll_node::identity::{self, tenant, user};
use atoll_node::{Actor, Config, Node, Role};
use atoll_sync::runner::Runner;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub const NAMES: [&str; 3] = ["reef", "lagoon", "shore"];
const TICKET_LIFETIME: Duration = Duration::from_secs(600);

pub struct Three {
    pub all: Vec<Running>,
    admin: Option<(Actor, String, String)>,
}

impl Three {
    pub async fn start(scratch: &Path) -> Outcome<Self> {
        let mut all = Vec::new();
        for name in NAMES {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let config = Config {
                data: scratch.join(name),
                listen: any,
                sync_listen: any,
                name: name.to_owned(),
                ..Config::default()
            };
            let node = Node::open(config)?;
            let listener = listen(node.config.listen).await?;
            all.push(Running::start(node, listener).await?);
        }
        Ok(Self { all, admin: None })
    }

    /// The first node begins a network.
    pub async fn found(&mut self, password: &str) -> Outcome {
        let node = &self.all[0].node;
        let email = node.config.admin_email.clone();
        let made = identity::setup(node, &email, password).await?;
        let actor = Actor::of(made.tenant.key, made.user.key, Role::Superadmin);
        self.admin = Some((actor, email, password.to_owned()));
        Ok(())
    }

    /// The admin, the same person on every node.
    pub fn admin(&self) -> Outcome<Actor> {
        let admin = self.admin.as_ref().map(|(actor, _, _)| *actor);
        admin.ok_or_else(|| Failure::failed("the network was not begun"))
    }

    fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.all.iter().filter_map(|running| running.node.sync())
    }

    /// Everyone knows everyone afterwards.
    pub async fn join(&self) -> Outcome {
        let runners: Vec<&Runner> = self.runners().collect();
        for (issuer, joiner) in [(0, 1), (0, 2), (1, 2)] {
            let ticket = runners[issuer]
                .ticket(Vec::new(), TICKET_LIFETIME, atoll_storage::Rights::everything())
                .await
                .map_err(Failure::failed)?;
            runners[joiner].join(&ticket).await.map_err(Failure::failed)?;
        }
        Ok(())
    }

    pub fn cut(&self) {
        self.runners().for_each(Runner::pause);
    }

    /// Those at these places talk again, to whoever answers.
    pub fn mend(&self, places: &[usize]) {
        let all: Vec<&Runner> = self.runners().collect();
        places.iter().filter_map(|place| all.get(*place)).for_each(|runner| runner.resume());
    }

    /// Whether every pair of nodes talks.
    pub fn is_linked(&self) -> bool {
        self.runners().all(|runner| {
            let peers = runner.status();
            peers.len() == NAMES.len() - 1 && peers.iter().all(|peer| peer.is_linked())
        })
    }

    pub fn reasons(&self) -> String {
        let mut told = Vec::new();
        for (name, runner) in NAMES.iter().zip(self.runners()) {
            for peer in runner.status() {
                told.push(format!(
                    "{name} to {}: {} {}",
                    peer.name,
                    peer.state.name(),
                    peer.reason
                ));
            }
        }
        told.join("; ")
    }

    /// What to try while they run.
    pub fn invite(&self) {
        say!("\nThe nodes stay up until Ctrl-C:");
        for running in &self.all {
            say!("  {:7} {}/api/docs", running.node.config.name, running.url());
        }
        if let Some((_, email, password)) = &self.admin {
            say!("  sign in on any of them as {email} with {password}");
        }
    }

    pub async fn stop(self) {
        let stopping: Vec<_> =
            self.all.into_iter().map(|running| tokio::spawn(running.stop())).collect();
        for stopped in stopping {
            // One that panicked has said so.
            let _ = stopped.await;
        }
    }
}

/// The user of an e-mail address or username, as an actor.
pub fn actor_of(node: &Node, name: &str) -> Outcome<Actor> {
    let tenant = tenant::default(node)?;
    let found = user::by_name(node, &Actor::system(tenant), name)?;
    Ok(Actor::of(tenant, found.key, user::role(&found)))
}
