//! A closed loop: each client starts its next step when the last one was answered. It measures; it must never pace,
//! retry or sleep, because that would flatter the slower side.

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::histogram::Histogram;

/// After so many failures in a row a client stops: a dead server is not to be hammered for the rest of the run.
const FAILURES_IN_A_ROW: u32 = 100;

/// One of many that work at the same time, with its own connection.
pub trait Client: Send + 'static {
    /// One whole unit of work. An `Err` is counted, and its text is shown once.
    fn step(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// What all clients did inside the measured time.
#[derive(Default)]
pub struct Outcome {
    latency: Histogram,
    errors: u64,
    first_error: Option<String>,
    measured_seconds: f64,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.latency.merge(&other.latency);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// One line of JSON.
    pub fn report(&self, target: &str, mode: &str, clients: usize) -> Value {
        json!({
            "target": target,
            "mode": mode,
            "clients": clients,
            "seconds": self.measured_seconds,
            "done": self.latency.total(),
            "per_second": tenths(self.latency.total() as f64 / self.measured_seconds),
            "p50_ms": self.latency.percentile_us(50.0) as f64 / 1_000.0,
            "p99_ms": self.latency.percentile_us(99.0) as f64 / 1_000.0,
            "max_ms": self.latency.highest_us() as f64 / 1_000.0,
            "errors": self.errors,
            "first_error": self.first_error,
        })
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Runs all clients for `warmup` and then for `measured`. A step counts when it starts and ends in the measured time.
pub async fn drive<C: Client>(clients: Vec<C>, warmup: Duration, measured: Duration) -> Outcome {
    let from = Instant::now() + warmup;
    let until = from + measured;
    let tasks: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(one(client, from, until))).collect();
    let mut sum = Outcome { measured_seconds: measured.as_secs_f64(), ..Outcome::default() };
    for task in tasks {
        match task.await {
            Ok(outcome) => sum.merge(outcome),
            Err(error) => sum.merge(Outcome {
                errors: 1,
                first_error: Some(error.to_string()),
                ..Outcome::default()
            }),
        }
    }
    sum
}

async fn one<C: Client>(mut client: C, from: Instant, until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut failures = 0;
    while failures < FAILURES_IN_A_ROW {
        let started = Instant::now();
        if started >= until {
            break;
        }
        let result = client.step().await;
        let ended = Instant::now();
        match result {
            Ok(()) => {
                failures = 0;
                if started >= from && ended <= until {
                    outcome.latency.record((ended - started).as_micros() as u64);
                }
            }
            // Counted in the warm-up as well: a run with errors is not a figure.
            Err(error) => {
                failures += 1;
                outcome.errors += 1;
                outcome.first_error.get_or_insert(error);
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refused;

    impl Client for Refused {
        async fn step(&mut self) -> Result<(), String> {
            Err("refused".to_owned())
        }
    }

    #[tokio::test]
    async fn a_client_that_only_fails_stops_long_before_the_end() {
        let outcome = drive(vec![Refused, Refused], Duration::ZERO, Duration::from_mins(10)).await;
        assert_eq!(outcome.errors(), u64::from(2 * FAILURES_IN_A_ROW));
        let report = outcome.report("nothing", "fail", 2);
        assert_eq!(report["first_error"], "refused");
        assert_eq!(report["done"], 0);
    }
}
