//! Loads a running node over HTTP and prints one line of JSON. It must never write to a node that it was not pointed at:
//! there is no default address.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_benches::drive::{Client, drive};
use atoll_benches::http::{Connection, get, post};
use atoll_benches::text::words;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Load a running node and print the figures as JSON.
#[derive(Parser)]
struct Flags {
    /// What every client does, over and over
    #[arg(value_enum)]
    mode: Mode,
    /// The node's HTTP address, such as 127.0.0.1:8080
    #[arg(long)]
    address: SocketAddr,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// The measured time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Load before the measured time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    warmup_seconds: u64,
    /// Wait so long for the node to be ready
    #[arg(long, default_value_t = 30)]
    wait_seconds: u64,
    /// Size of the body that `create` writes
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    body_bytes: u32,
    /// Threads of this program; one leaves the node the rest of a small machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Read as a stranger, without a token
    #[arg(long)]
    anonymous: bool,
    /// A bearer token; without it the program logs in
    #[arg(long, env = "ATOLL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[arg(long, env = "ATOLL_ADMIN_EMAIL")]
    email: Option<String>,
    #[arg(long, env = "ATOLL_ADMIN_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// POST a new post
    Create,
    /// GET one post after the other
    Get,
    /// GET a page of 20 posts
    List,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::List => "list",
        }
    }

    fn expected_status(self) -> u16 {
        if self == Self::Create { 201 } else { 200 }
    }
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Outcome<bool> {
    let threads = usize::from(flags.threads);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(load(flags))
}

/// True when no request failed.
async fn load(flags: Flags) -> Outcome<bool> {
    let mut connection = ready(flags.address, Duration::from_secs(flags.wait_seconds)).await?;
    let host = flags.address.to_string();
    let token = if flags.anonymous { None } else { token(&flags, &mut connection, &host).await? };
    let reads = match flags.mode {
        Mode::Create => Vec::new(),
        Mode::Get => one_by_one(&mut connection, &host, token.as_deref()).await?,
        Mode::List => vec![get(&host, "/api/v1/posts?limit=20", token.as_deref())],
    };
    let plan = Arc::new(Plan {
        address: flags.address,
        host,
        token,
        reads,
        mode: flags.mode,
        size: flags.body_bytes,
    });
    let mut clients = Vec::new();
    for number in 0..flags.clients {
        clients.push(Visitor::connect(Arc::clone(&plan), number).await?);
    }
    let (warmup, measured) =
        (Duration::from_secs(flags.warmup_seconds), Duration::from_secs(flags.seconds));
    let outcome = drive(clients, warmup, measured).await;
    println!("{}", outcome.report("atoll", flags.mode.name(), flags.clients.into()));
    Ok(outcome.errors() == 0)
}

/// Asks /readyz until the node says yes.
async fn ready(address: SocketAddr, within: Duration) -> Outcome<Connection> {
    let until = Instant::now() + within;
    loop {
        if let Ok(mut connection) = Connection::open(address).await
            && matches!(connection.exchange(&get("localhost", "/readyz", None)).await, Ok(200))
            && !connection.is_closing()
        {
            return Ok(connection);
        }
        if Instant::now() >= until {
            return Err(format!(
                "no node is ready at {address} after {} s; start one first",
                within.as_secs()
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn token(flags: &Flags, connection: &mut Connection, host: &str) -> Outcome<Option<String>> {
    if flags.token.is_some() {
        return Ok(flags.token.clone());
    }
    let (Some(email), Some(password)) = (&flags.email, &flags.password) else {
        return Err("set ATOLL_TOKEN, or ATOLL_ADMIN_EMAIL and ATOLL_ADMIN_PASSWORD, or read with --anonymous".into());
    };
    let body = json!({ "email": email, "password": password }).to_string();
    let answer = fetch(connection, &post(host, "/api/v1/auth/login", None, &body)).await?;
    let token = answer["data"]["access_token"]
        .as_str()
        .ok_or("the login's answer has no data.access_token")?;
    Ok(Some(token.to_owned()))
}

/// A request for each of the newest posts, up to a hundred.
async fn one_by_one(
    connection: &mut Connection,
    host: &str,
    token: Option<&str>,
) -> Outcome<Vec<Vec<u8>>> {
    let page = fetch(connection, &get(host, "/api/v1/posts?limit=100", token)).await?;
    let posts = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids = posts.iter().filter_map(|post| post["id"].as_str());
    let requests: Vec<_> = ids.map(|id| get(host, &format!("/api/v1/posts/{id}"), token)).collect();
    if requests.is_empty() {
        return Err("there is no post to get; run `load create` first (a stranger sees published ones only)".into());
    }
    Ok(requests)
}

async fn fetch(connection: &mut Connection, request: &[u8]) -> Outcome<Value> {
    let status = connection.exchange(request).await?;
    if status != 200 {
        return Err(refused(status, connection.body()).into());
    }
    Ok(serde_json::from_slice(connection.body())?)
}

fn refused(status: u16, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
    format!("HTTP status {status}: {text}")
}

struct Plan {
    address: SocketAddr,
    host: String,
    token: Option<String>,
    reads: Vec<Vec<u8>>,
    mode: Mode,
    size: u32,
}

struct Visitor {
    plan: Arc<Plan>,
    connection: Connection,
    /// Tells this run's titles from those of the runs before.
    run: u32,
    number: u16,
    steps: usize,
}

impl Visitor {
    async fn connect(plan: Arc<Plan>, number: u16) -> Outcome<Self> {
        let connection = Connection::open(plan.address).await?;
        Ok(Self { plan, connection, run: std::process::id(), number, steps: 0 })
    }

    fn new_post(&self) -> Vec<u8> {
        let Self { run, number, steps, .. } = self;
        let seed = u64::from(*number) << 32 | *steps as u64;
        let text = words(seed, self.plan.size as usize);
        let body =
            json!({ "title": format!("Load {run} {number} {steps}"), "body": text }).to_string();
        post(&self.plan.host, "/api/v1/posts", self.plan.token.as_deref(), &body)
    }
}

impl Client for Visitor {
    async fn step(&mut self) -> Result<(), String> {
        let sent = if self.plan.mode == Mode::Create {
            let request = self.new_post();
            self.connection.exchange(&request).await
        } else {
            let at = (self.steps + usize::from(self.number)) % self.plan.reads.len();
            self.connection.exchange(&self.plan.reads[at]).await
        };
        self.steps += 1;
        let broken = sent.is_err() || self.connection.is_closing();
        let result = match sent {
            Ok(status) if status == self.plan.mode.expected_status() => Ok(()),
            Ok(status) => Err(refused(status, self.connection.body())),
            Err(error) => Err(error.to_string()),
        };
        if broken {
            self.connection =
                Connection::open(self.plan.address).await.map_err(|error| error.to_string())?;
        }
        result
    }
}
