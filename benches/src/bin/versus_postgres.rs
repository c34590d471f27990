//! The other side of the comparison: a row in PostgreSQL and an event in RabbitMQ, both durable before the next one.
//! It takes the fastest correct way: one prepared statement that commits itself, a channel kept open for each client.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use atoll_benches::drive::{Client, drive};
use atoll_benches::text::words;
use clap::Parser;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::json;
use tokio_postgres::{NoTls, Statement};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const QUEUE: &str = "atoll.versus";
/// Delivery mode 2: the broker keeps the message on disk.
const PERSISTENT: u8 = 2;
const TABLE: &str = "CREATE TABLE IF NOT EXISTS posts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000001',
    slug text NOT NULL UNIQUE,
    title text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)";

/// Insert and commit a row, then publish its event and wait for the broker's confirmation; print the figures as JSON.
#[derive(Parser)]
struct Flags {
    /// PostgreSQL's connection string
    #[arg(long, default_value = "host=127.0.0.1 port=5432 user=postgres dbname=postgres")]
    postgres: String,
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    rabbitmq: String,
    /// Numbers of clients, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    clients: Vec<u16>,
    /// The measured time of each run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=600))]
    warmup_seconds: u64,
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    body_bytes: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Clients that share one AMQP connection, each with a channel of its own
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    channels: u16,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("versus_postgres: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Outcome<bool> {
    let threads = usize::from(flags.threads);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(all_runs(flags))
}

/// True when no step failed.
async fn all_runs(flags: &Flags) -> Outcome<bool> {
    connect_postgres(flags).await?.batch_execute(TABLE).await?;
    let mut clean = true;
    for clients in &flags.clients {
        clean &= one_run(flags, *clients).await?;
    }
    Ok(clean)
}

async fn one_run(flags: &Flags, count: u16) -> Outcome<bool> {
    let mut brokers = Vec::new();
    let mut clients = Vec::new();
    for number in 0..count {
        if number % flags.channels == 0 {
            brokers
                .push(Connection::connect(&flags.rabbitmq, ConnectionProperties::default()).await?);
        }
        let broker = brokers.last().ok_or("no broker connection")?;
        clients.push(Writer::connect(flags, broker, (count, number)).await?);
    }
    if let Some(first) = clients.first() {
        first.channel.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await?;
    }
    let (warmup, measured) =
        (Duration::from_secs(flags.warmup_seconds), Duration::from_secs(flags.seconds));
    let outcome = drive(clients, warmup, measured).await;
    println!("{}", outcome.report("postgres+rabbitmq", "create", count.into()));
    Ok(outcome.errors() == 0)
}

async fn connect_postgres(flags: &Flags) -> Outcome<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(&flags.postgres, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn open_channel(broker: &Connection) -> Outcome<Channel> {
    let channel = broker.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), durable, FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

struct Writer {
    rows: tokio_postgres::Client,
    insert: Statement,
    channel: Channel,
    body_bytes: usize,
    name: String,
    seed: u64,
}

impl Writer {
    async fn connect(
        flags: &Flags,
        broker: &Connection,
        (run, number): (u16, u16),
    ) -> Outcome<Self> {
        let rows = connect_postgres(flags).await?;
        let insert = rows
            .prepare("INSERT INTO posts (slug, title, body) VALUES ($1, $2, $3) RETURNING id")
            .await?;
        let name = format!("Load {} {run} {number}", std::process::id());
        let seed = u64::from(number) << 32;
        let channel = open_channel(broker).await?;
        Ok(Self { rows, insert, channel, body_bytes: flags.body_bytes as usize, name, seed })
    }

    async fn write(&mut self) -> Outcome<()> {
        self.seed += 1;
        let title = format!("{} {}", self.name, self.seed);
        let slug = title.to_lowercase().replace(' ', "-");
        let body = words(self.seed, self.body_bytes);
        // Outside a transaction block the statement commits itself before it is answered.
        let row = self.rows.query_one(&self.insert, &[&slug, &title, &body]).await?;
        self.publish(row.get(0), &title).await
    }

    async fn publish(&self, id: i64, title: &str) -> Outcome<()> {
        let event = json!({
            "event_id": format!("00000000-0000-7000-8000-{:012x}", self.seed),
            "event_type": "postal.post.created",
            "timestamp": "2025-01-01T00:00:00Z",
            "tenant_id": "00000000-0000-0000-0000-000000000001",
            "user_id": "00000000-0000-0000-0000-000000000002",
            "payload": { "id": id, "title": title },
        })
        .to_string();
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self
            .channel
            .basic_publish("".into(), QUEUE.into(), options, event.as_bytes(), properties)
            .await?;
        match sent.await? {
            Confirmation::Ack(None) => Ok(()),
            other => Err(format!("the broker did not confirm: {other:?}").into()),
        }
    }
}

impl Client for Writer {
    async fn step(&mut self) -> Result<(), String> {
        self.write().await.map_err(|error| error.to_string())
    }
}
