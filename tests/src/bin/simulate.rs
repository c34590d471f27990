//! Runs the simulator over any number of seeds: `simulate [from] [how many] [threads]`. Prints every failure and a
//! line of progress, and ends with an error if any seed failed.

use atoll_tests::simulator::{self, Outcome};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
struct Tally {
    done: u64,
    failed: Vec<u64>,
    sum: Outcome,
}

impl Tally {
    fn add(&mut self, seed: u64, result: Result<Outcome, String>) {
        self.done += 1;
        match result {
            Ok(one) => self.sum.add(&one),
            Err(failure) => {
                println!("\n{failure}\n");
                self.failed.push(seed);
            }
        }
    }

    fn show(&self, from: u64, of: u64) {
        let Tally { done, failed, sum } = self;
        println!("seeds {from}..{} done {done}, failed {}: {sum:?}", from + of, failed.len());
    }
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().ok());
    let mut next = |default| numbers.next().flatten().unwrap_or(default);
    let (from, of, threads) = (next(0), next(1_000), next(2));
    let at = AtomicU64::new(from);
    let tally = Mutex::new(Tally::default());
    let work = || loop {
        let seed = at.fetch_add(1, Ordering::Relaxed);
        if seed >= from + of {
            return;
        }
        let result = simulator::run(seed);
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.add(seed, result);
        if tally.done.is_multiple_of(100) {
            tally.show(from, of);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.show(from, of);
    if tally.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed seeds: {:?}", tally.failed);
    ExitCode::FAILURE
}
