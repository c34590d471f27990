//! Counts and latencies of requests by route, and `/metrics` in the text format of Prometheus. Atomic numbers
//! of a fixed count; no caller can add a label.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::{Access::Public, Answer, Route, get};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub fn routes() -> Vec<Route> {
    vec![get("/metrics", Public, show).bare().doc("Figures in the text format of Prometheus.")]
}

/// Upper bounds in microseconds.
const BOUNDS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];
const STATUSES: [u16; 21] = [
    200, 201, 202, 204, 301, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 429, 500,
    503, 507,
];

#[derive(Default)]
struct RouteFigures {
    /// The last is for all other statuses.
    statuses: [AtomicU64; STATUSES.len() + 1],
    /// The last is for all that took longer.
    latency: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

pub struct Metrics {
    /// By place of the route; the last is for paths that are no route.
    routes: Vec<RouteFigures>,
    pub streams: AtomicU64,
}

impl Metrics {
    pub fn new(routes: usize) -> Self {
        Self {
            routes: (0..=routes).map(|_| RouteFigures::default()).collect(),
            streams: AtomicU64::new(0),
        }
    }

    pub fn note(&self, route: Option<usize>, status: u16, took: Duration) {
        let last = self.routes.len() - 1;
        let Some(figures) = self.routes.get(route.unwrap_or(last)) else { return };
        let status = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        figures.statuses[status].fetch_add(1, Relaxed);
        let us = took.as_micros() as u64;
        figures.latency[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        figures.sum_us.fetch_add(us, Relaxed);
    }

    fn write(&self, text: &mut String, routes: &[Route]) {
        let label = |i: usize| {
            let route = routes.get(i).map_or(("*", "unmatched"), |r| (r.method.as_str(), r.path));
            format!("method=\"{}\",route=\"{}\"", route.0, route.1)
        };
        head(text, "atoll_http_requests_total", "counter", "Requests by route and status.");
        for (i, figures) in self.routes.iter().enumerate() {
            for (status, count) in figures.statuses.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    let status = STATUSES.get(status).map_or("other".to_owned(), u16::to_string);
                    let _ = writeln!(
                        text,
                        "atoll_http_requests_total{{{},status=\"{status}\"}} {count}",
                        label(i)
                    );
                }
            }
        }
        head(
            text,
            "atoll_http_request_seconds",
            "histogram",
            "Time from request to answer by route.",
        );
        for (i, figures) in self.routes.iter().enumerate() {
            figures.write_latency(text, &label(i));
        }
        head(text, "atoll_http_streams", "gauge", "Open event streams.");
        let _ = writeln!(text, "atoll_http_streams {}", self.streams.load(Relaxed));
    }
}

impl RouteFigures {
    fn write_latency(&self, text: &mut String, label: &str) {
        let counts: Vec<u64> = self.latency.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return;
        }
        let mut below = 0;
        for (bound, count) in BOUNDS_US.iter().zip(&counts) {
            below += count;
            let bound = *bound as f64 / 1e6;
            let _ = writeln!(
                text,
                "atoll_http_request_seconds_bucket{{{label},le=\"{bound}\"}} {below}"
            );
        }
        let _ = writeln!(text, "atoll_http_request_seconds_bucket{{{label},le=\"+Inf\"}} {total}");
        let sum = self.sum_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "atoll_http_request_seconds_sum{{{label}}} {sum}");
        let _ = writeln!(text, "atoll_http_request_seconds_count{{{label}}} {total}");
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

async fn show(call: Call) -> Answer {
    let mut text = String::with_capacity(16 * 1024);
    call.app.metrics.write(&mut text, &call.app.routes);
    for (name, help, figure) in call.node.figures() {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "{name} {figure}");
    }
    Reply::text("text/plain; version=0.0.4; charset=utf-8", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_under_its_status_and_its_latency() {
        let metrics = Metrics::new(0);
        metrics.note(None, 404, Duration::from_micros(70));
        metrics.note(Some(9), 404, Duration::ZERO);
        metrics.note(None, 599, Duration::from_secs(60));
        let mut text = String::new();
        metrics.write(&mut text, &[]);
        assert!(text.contains("{method=\"*\",route=\"unmatched\",status=\"404\"} 1\n"), "{text}");
        assert!(text.contains("status=\"other\"} 1\n"));
        assert!(text.contains("route=\"unmatched\",le=\"0.0001\"} 1\n"));
        assert!(text.contains("le=\"+Inf\"} 2\n"));
    }
}
