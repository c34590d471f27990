//! A network of nodes in one thread and one seed: real databases, real sessions, made-up time and a made-up wire
//! that loses, doubles, reorders and damages. Whatever happened, once it is healed all nodes must be equal and
//! nothing acknowledged may be gone. The same seed gives the same run.

mod act;
mod bucket;
mod courier;
mod files;
mod limit;
mod model;
mod nemesis;
mod node;
mod oracle;
mod outcome;
mod parts;
mod plan;
mod removal;
mod small;
mod wire;
mod world;

pub use outcome::Outcome;
pub use plan::Plan;
pub use world::World;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Two nodes that wrote apart from each other meet, and one of them is killed at a certain step of that. How many
/// steps there were.
pub fn run_killed_at(seed: u64, by_snapshot: bool, step: u64) -> Result<u64, String> {
    let world = World::with_plan(seed, Plan::calm(by_snapshot));
    let steps = world.and_then(|world| world.run_killed_at(step));
    steps.map_err(|failure| format!("killed at step {step} of seed {seed}: {failure}"))
}

/// Nodes without links meet in a bucket, and one of their visits is broken off at a certain step. How many steps there were.
pub fn run_broken_at(seed: u64, plan: Plan, step: u64) -> Result<u64, String> {
    let world = World::with_plan(seed, plan);
    let steps = world.and_then(|world| world.run_broken_at(step));
    steps.map_err(|failure| format!("broken off at step {step} of seed {seed}: {failure}"))
}

/// Nodes that are equal; then one of them is removed by another, and writes on alone, to whoever has not heard. What the
/// others show in the end is what they showed before.
pub fn run_removal(seed: u64, plan: Plan) -> Result<Outcome, String> {
    let shown = format!("{plan:?}");
    let outcome = World::with_plan(seed, plan).and_then(World::run_removal);
    outcome.map_err(|failure| format!("removal, seed {seed}: {failure}\n  {shown}"))
}

/// Courses in which something is certain that others have seldom or never.
const CERTAIN: [(&str, Course); 11] = [
    ("a removed node", |seed| run_plan(seed, Plan::revoking(seed))),
    ("a limited node", |seed| run_plan(seed, Plan::limiting(seed))),
    ("late writes", |seed| run_plan(seed, Plan::removal(seed))),
    ("late writes taken back", |seed| run_removal(seed, Plan::quiet_removal(seed))),
    ("late writes to parts", |seed| run_plan(seed, Plan::partial_removal(seed))),
    ("late writes to parts taken back", |seed| {
        run_removal(seed, Plan::quiet_partial_removal(seed))
    }),
    ("a bucket", |seed| run_plan(seed, Plan::bucket(seed))),
    ("a bucket with files", |seed| run_plan(seed, Plan::bucket_with_files(seed))),
    ("a bucket of two lives", |seed| run_plan(seed, Plan::forked_bucket(seed))),
    ("a line of parts", |seed| run_plan(seed, Plan::partial_line(seed))),
    ("an older release between", |seed| run_plan(seed, Plan::older_between(seed))),
];

type Course = fn(u64) -> Result<Outcome, String>;

/// One of the courses in which something is certain, by turns.
pub fn run_certain(seed: u64) -> Result<Outcome, String> {
    let (name, course) = CERTAIN[(seed % CERTAIN.len() as u64) as usize];
    course(seed).map_err(|failure| format!("{name}: {failure}"))
}

/// One seed from its first write to the last check. The error says what went wrong and how to see it again.
pub fn run(seed: u64) -> Result<Outcome, String> {
    run_plan(seed, Plan::of(seed))
}

/// The same under a plan of its own.
pub fn run_plan(seed: u64, plan: Plan) -> Result<Outcome, String> {
    let shown = format!("{plan:?}");
    let run = || World::with_plan(seed, plan).and_then(World::run);
    let result = catch_unwind(AssertUnwindSafe(run));
    let failure = match result {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(failure)) => failure,
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "a panic".into()),
    };
    Err(format!(
        "seed {seed}: {failure}\n  {shown}\n  alone: ATOLL_SEED={seed} cargo test -p atoll-tests --test simulation"
    ))
}
