//! `serve` and `init`: a node from its settings to its end. Whatever ends it, it ends in order.

use crate::control::Control;
use crate::failure::{Failure, Outcome};
use crate::first::{self, Admin};
use crate::flags;
use atoll_api::{Face, Options};
use atoll_node::runtime::Workers;
use atoll_node::{Config, Node};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A node that answers.
pub struct Running {
    pub node: Arc<Node>,
    pub http: SocketAddr,
    pub sync: SocketAddr,
    workers: Workers,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Running {
    /// Starts what answers on an open node.
    pub async fn start(node: Arc<Node>, listener: TcpListener) -> Outcome<Self> {
        let http = listener.local_addr().map_err(Failure::failed)?;
        let workers = node.start().await?;
        let sync = workers.sync_addr();
        let (stop, mut stopped) = watch::channel(false);
        let face = Face::new(node.clone(), Options::of(&node.config));
        let server = tokio::spawn(atoll_api::serve(listener, face, async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }));
        Ok(Self { node, http, sync, workers, stop, server })
    }

    pub fn url(&self) -> String {
        let configured = &self.node.config.public_url;
        if configured.is_empty() { format!("http://{}", self.http) } else { configured.clone() }
    }

    /// Lets requests under way end, then the workers, then the store.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.server.await;
        self.workers.shutdown().await;
    }
}

/// Where HTTP listens; a taken port is told as such.
pub async fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!(
            "cannot listen on {address}: {error}; choose another with --listen"
        ))
    })
}

pub async fn serve(config: Config, flags: flags::Serve) -> Outcome {
    let signals = Signals::new()?;
    let node = Node::open(config)?;
    let listener = listen(node.config.listen).await?;
    let running = Running::start(node.clone(), listener).await?;
    let outcome = run(&running, &flags, signals).await;
    running.stop().await;
    outcome
}

async fn run(running: &Running, flags: &flags::Serve, mut signals: Signals) -> Outcome {
    let admin = if let Some(ticket) = &flags.join {
        let joined = tokio::select! {
            joined = first::join(&running.node, ticket) => joined?,
            _ = signals.next() => return Ok(()),
        };
        say!("{joined}");
        None
    } else {
        // Not before all that can fail to start has started: the password would be made and never shown.
        first::found(&running.node).await?
    };
    // A disk that is full or read-only is no reason not to serve what is there.
    let control = Control::open(running.node.clone()).await;
    let control = control.inspect_err(
        |error| tracing::warn!(%error, "commands cannot reach this node while it runs"),
    );
    if let Some(file) = &flags.port_file {
        write_ports(running, file)?;
    }
    greet(running, admin.as_ref());
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    drop(control);
    if let Some(file) = &flags.port_file {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// In one step: whoever waits for the file never reads half of it.
fn write_ports(running: &Running, file: &Path) -> Outcome {
    let ports = json!({
        "pid": std::process::id(),
        "url": format!("http://{}", running.http),
        "http": running.http.to_string(),
        "sync": running.sync.to_string(),
        "node": running.node.id().to_string(),
    });
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, format!("{ports}\n"))
        .and_then(|()| std::fs::rename(&draft, file))
        .map_err(|error| Failure::io("write", file, &error))
}

fn greet(running: &Running, admin: Option<&Admin>) {
    let url = running.url();
    if let Some(admin) = admin {
        show_admin(&url, admin);
    }
    say!("Atoll is ready at {url}");
    say!("  the API, to browse    {url}/api/docs");
    say!("  the node's console    {url}/console");
    say!("  other nodes           {} (UDP)", running.sync);
    say!("  data                  {}", running.node.folder().path().display());
    tracing::info!(http = %running.http, sync = %running.sync, node = %running.node.id(), "ready");
}

/// Once, in a box: nothing keeps the password in plain text.
pub fn show_admin(url: &str, admin: &Admin) {
    let password = match &admin.password {
        Some(made) => format!("password  {made}"),
        None => format!("password  (the one in {})", first::PASSWORD_VARIABLE),
    };
    let mut lines = vec!["The first admin was made.".to_owned(), String::new()];
    lines.extend([format!("sign in   {url}"), format!("e-mail    {}", admin.email), password]);
    if admin.password.is_some() {
        lines.extend([String::new(), "Keep the password: it is not shown again.".to_owned()]);
    }
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    say!("┌─{}─┐", "─".repeat(width));
    for line in lines {
        say!("│ {line}{} │", " ".repeat(width - line.chars().count()));
    }
    say!("└─{}─┘", "─".repeat(width));
}

/// Makes the folder ready, and stops. The folder keeps the name if it `is_named` here and now.
pub async fn init(
    config: Config,
    flags: flags::Init,
    is_named: bool,
) -> Outcome<serde_json::Value> {
    let node = Node::open(config)?;
    if is_named {
        let (folder, name) = (node.folder(), &node.config.name);
        let kept = folder.keep_name(name);
        kept.map_err(|error| Failure::io("keep the name in", folder.path(), &error))?;
    }
    let mut told = json!({
        "data": node.folder().path().display().to_string(),
        "node": node.id().to_string(),
        "name": node.config.name,
        "public_key": node.key().public().to_string(),
    });
    if let Some(key) = flags.courier_from {
        let listed = first::list(&node, &key, &flags.courier_name).await;
        close(&node).await;
        listed?;
        told["courier_from"] = flags.courier_name.into();
        return Ok(told);
    }
    match flags.join {
        None => {
            let admin = first::found(&node).await?;
            told["made"] = admin.is_some().into();
            if let Some(admin) = admin {
                told["email"] = admin.email.into();
                told["password"] = admin.password.into();
            }
            close(&node).await;
        }
        Some(ticket) => {
            let workers = node.start().await?;
            let joined = first::join(&node, &ticket).await;
            workers.shutdown().await;
            told["joined"] = joined?.name.into();
        }
    }
    Ok(told)
}

/// For commands that open a node without starting it.
pub async fn close(node: &Node) {
    let store = node.store.clone();
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}

/// What asks a process to end. A second time ends it at once.
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn new() -> Outcome<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
            Ok(Self { terminate })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    pub async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = tokio::signal::ctrl_c() => "Ctrl-C",
        };
        #[cfg(not(unix))]
        let signal = {
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        };
        signal
    }
}
