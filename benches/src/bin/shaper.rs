//! Carries IP packets between two TUN devices as a satellite, Wi-Fi, 3G or a LAN would: a netem for kernels that have
//! none. `shaper NAME`, with one open TUN device as its input and another as its output; `benches/paths.py` makes them. Ends
//! when a device is gone.

use atoll_benches::shape::{Lane, PATHS};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

/// Packets on one way at once: more than any path here has room for.
const MOST_ON_THE_WAY: usize = 16_384;

fn main() -> ExitCode {
    let named = std::env::args().nth(1).unwrap_or_default();
    let Some(shape) = PATHS.into_iter().find(|shape| shape.name == named) else {
        let known: Vec<&str> = PATHS.iter().map(|shape| shape.name).collect();
        eprintln!("shaper: there is no path {named:?}: it is one of {}", known.join(", "));
        return ExitCode::FAILURE;
    };
    match devices() {
        Ok([a, b]) => thread::scope(|scope| {
            for (seed, from, to) in [(1, &a, &b), (2, &b, &a)] {
                let (due, waiting) = sync_channel(MOST_ON_THE_WAY);
                scope.spawn(move || take(from, Lane::new(shape, Instant::now(), seed), &due));
                scope.spawn(move || give(to, &waiting));
            }
            ExitCode::SUCCESS
        }),
        Err(error) => {
            eprintln!("shaper: its input and output must be TUN devices: {error}");
            ExitCode::FAILURE
        }
    }
}

fn devices() -> io::Result<[File; 2]> {
    let (input, output) = (io::stdin(), io::stdout());
    Ok([input.as_fd().try_clone_to_owned()?.into(), output.as_fd().try_clone_to_owned()?.into()])
}

/// A device gives one packet a read.
fn take(mut from: &File, mut lane: Lane, due: &SyncSender<(Instant, Vec<u8>)>) {
    let mut packet = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut packet) {
        if let Some(at) = lane.pass(Instant::now(), length) {
            // Where it does not fit, it is lost, as on the path.
            let _ = due.try_send((at, packet[..length].to_vec()));
        }
    }
}

fn give(mut to: &File, waiting: &Receiver<(Instant, Vec<u8>)>) {
    for (at, packet) in waiting {
        while let Some(rest) = at.checked_duration_since(Instant::now()) {
            thread::park_timeout(rest);
        }
        if to.write(&packet).is_err() {
            return;
        }
    }
}
