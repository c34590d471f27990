//! Runs the simulator over any number of seeds: `simulate [from] [how many] [threads]`, each twice: with what the seed has in
//! store, and in a course in which a removed node, a limited one, a bucket or the like is certain. Prints every failure and a line of
//! progress, and ends with an error if any seed failed, or if of many seeds something befell none.

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

/// Among so many seeds everything happens.
const MANY: u64 = 1_000;

impl Tally {
    fn add(&mut self, seed: u64, results: [Result<Outcome, String>; 2]) {
        self.done += 1;
        for result in results {
            match result {
                Ok(one) => self.sum.add(&one),
                Err(failure) => {
                    println!("\n{failure}\n");
                    self.failed.push(seed);
                }
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
        let results = [simulator::run(seed), simulator::run_certain(seed)];
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.add(seed, results);
        if tally.done.is_multiple_of(100) {
            tally.show(from, of);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.show(from, of);
    if !tally.failed.is_empty() {
        println!("failed seeds: {:?}", tally.failed);
        return ExitCode::FAILURE;
    }
    let never = tally.sum.never();
    if of >= MANY && !never.is_empty() {
        println!("never happened: {}", never.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
