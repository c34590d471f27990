//! The network of nodes in one thread, a thousand seeds of it. `ATOLL_SEED=n` runs one, `ATOLL_SEEDS=from..to` many.

use atoll_tests::simulator;

const SEEDS: u64 = 1_000;
/// Test functions, so that every core has something to do.
const PARTS: u64 = 4;

/// The seeds to run.
fn seeds() -> (u64, u64) {
    asked().unwrap_or((0, SEEDS))
}

/// Those that were asked for.
fn asked() -> Option<(u64, u64)> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    if let Some(seed) = std::env::var("ATOLL_SEED").ok().as_deref().and_then(number) {
        return Some((seed, seed + 1));
    }
    let range = std::env::var("ATOLL_SEEDS").ok();
    let (from, to) = range.as_deref()?.split_once("..")?;
    Some((number(from)?, number(to)?))
}

/// What only other plans than those of all seeds bring about, or too few of them.
const ELSEWHERE: [&str; 6] =
    ["refused", "limits", "late", "left_states", "collided", "merged_bundles"];

fn run_part(part: u64) {
    let (from, to) = seeds();
    let (mut sum, mut failures) = (simulator::Outcome::default(), vec![]);
    for seed in (from..to).filter(|seed| seed % PARTS == part) {
        match simulator::run(seed) {
            Ok(outcome) => sum.add(&outcome),
            Err(failure) => failures.push(failure),
        }
        if failures.len() == 3 {
            break;
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    if asked().is_none() {
        let never: Vec<&str> =
            sum.never().into_iter().filter(|evil| !ELSEWHERE.contains(evil)).collect();
        assert!(never.is_empty(), "never happened: {never:?}, in {sum:?}");
    }
}

#[test]
fn nodes_are_equal_after_whatever_befell_them_first_quarter() {
    run_part(0);
}

#[test]
fn nodes_are_equal_after_whatever_befell_them_second_quarter() {
    run_part(1);
}

#[test]
fn nodes_are_equal_after_whatever_befell_them_third_quarter() {
    run_part(2);
}

#[test]
fn nodes_are_equal_after_whatever_befell_them_last_quarter() {
    run_part(3);
}

/// A seed under the evils that there were when it failed.
fn as_it_was(seed: u64) -> Result<simulator::Outcome, String> {
    let plan = simulator::Plan::of(seed);
    simulator::run_plan(
        seed,
        simulator::Plan { upgrades: false, rots: false, buckets: false, ..plan },
    )
}

/// The same of one that failed where buckets were folders without files.
fn of_folder(seed: u64) -> Result<simulator::Outcome, String> {
    simulator::run_plan(seed, simulator::Plan::of(seed).with_folder())
}

/// An answer that took a year made the next timeout three of them.
#[test]
fn a_link_over_which_a_year_passed_goes_on() {
    as_it_was(283).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two lives of a node had written to one record under one dot, at different times: a repair swapped the times.
#[test]
fn a_repair_ends_where_two_writes_bear_one_name() {
    as_it_was(832).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two lives of a node had moved one record under one dot, at different times: after a repair the inbox told the other time.
#[test]
fn a_repair_that_changes_nothing_but_a_time_reaches_the_inbox() {
    let plan = simulator::Plan { rots: false, buckets: false, ..simulator::Plan::of(23_375) };
    simulator::run_plan(23_375, plan).unwrap_or_else(|failure| panic!("{failure}"));
}

/// A courier brought a part of a snapshot to a node that had no op of the stream: it did not tell of it.
#[test]
fn a_part_of_a_snapshot_that_was_carried_to_one_reaches_all() {
    of_folder(102_952).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two lives of a node had written under one dot, and who had heard of the one met who had heard of the other in a bucket only.
#[test]
fn two_lives_of_a_node_that_are_told_apart_in_a_bucket_alone_become_one_state() {
    of_folder(100_789).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two places of one circle moved in one step: a third one showed no parent for ever.
#[test]
fn a_circle_that_is_broken_twice_at_once_is_none_on_any_node() {
    simulator::run_plan(1_035, simulator::Plan::limiting(1_035)).unwrap_or_else(|e| panic!("{e}"));
}

/// Each step of two nodes that meet, one run a step: by ops, and by snapshot since their logs were trimmed.
#[test]
fn a_node_killed_at_any_step_of_a_meeting_loses_nothing() {
    for by_snapshot in [false, true] {
        let (mut step, mut steps) = (0, 1);
        while step < steps {
            step += 1;
            steps =
                simulator::run_killed_at(7, by_snapshot, step).unwrap_or_else(|e| panic!("{e}"));
        }
        assert!(steps > 20, "only {steps} steps");
    }
}

/// Runs each of the seeds that were asked for, else the first `usual`, and adds up a figure of what happened. With how many
/// seeds that were.
fn total(
    usual: u64,
    run: impl Fn(u64) -> Result<simulator::Outcome, String>,
    figure: impl Fn(&simulator::Outcome) -> u64,
) -> (u64, u64) {
    let (from, to) = asked().unwrap_or((0, usual));
    let (mut total, mut failures) = (0, vec![]);
    for seed in from..to {
        match run(seed) {
            Ok(outcome) => total += figure(&outcome),
            Err(failure) => failures.push(failure),
        }
    }
    failures.truncate(3);
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    (total, to - from)
}

/// The same with the plan that each seed has of a kind.
fn total_of(
    usual: u64,
    plan: fn(u64) -> simulator::Plan,
    figure: impl Fn(&simulator::Outcome) -> u64,
) -> (u64, u64) {
    total(usual, |seed| simulator::run_plan(seed, plan(seed)), figure)
}

/// In one of so many runs at least something comes late.
fn removals(usual: u64, one_in: u64, run: impl Fn(u64) -> Result<simulator::Outcome, String>) {
    let (late, seeds) = total(usual, run, |outcome| u64::from(outcome.late > 0));
    assert!(late >= seeds / one_in, "in only {late} runs something was late");
}

/// All but one write on as well, and do not know for a while.
#[test]
fn what_a_removed_node_wrote_late_is_in_no_state() {
    removals(150, 4, |seed| simulator::run_plan(seed, simulator::Plan::removal(seed)));
}

/// What the others show in the end is what they showed when it was removed.
#[test]
fn what_a_removed_node_wrote_late_shows_nowhere_in_the_end() {
    removals(150, 4, |seed| simulator::run_removal(seed, simulator::Plan::quiet_removal(seed)));
}

/// The removed one meets a node that carries a part of what it writes, or writes a part of what others carry.
#[test]
fn what_a_removed_node_wrote_late_is_in_no_state_of_partial_nodes() {
    removals(60, 8, |seed| simulator::run_plan(seed, simulator::Plan::partial_removal(seed)));
}

#[test]
fn what_a_removed_node_wrote_late_shows_on_no_partial_node_in_the_end() {
    let plan = simulator::Plan::quiet_partial_removal;
    removals(60, 8, |seed| simulator::run_removal(seed, plan(seed)));
}

/// What one of the nodes between does not carry, the others get by another way or not at all; what it carries passes.
#[test]
fn three_hops_of_differently_partial_nodes_lose_nothing() {
    let (dropped, seeds) = total_of(60, simulator::Plan::partial_line, |outcome| outcome.dropped);
    assert!(dropped >= seeds / 3, "only {dropped} streams were dropped");
}

/// Both ends know a kind and a field that the node between them lacks. It passes them on, and shows them once it is upgraded.
#[test]
fn what_an_older_release_does_not_know_passes_through_it_untouched() {
    let (upgrades, seeds) =
        total_of(80, simulator::Plan::older_between, |outcome| outcome.upgrades);
    assert!(upgrades >= seeds / 20, "only {upgrades} nodes were upgraded");
}

/// What it wrote and somebody had taken is everywhere, what nobody had taken is nowhere, and all others go on.
#[test]
fn a_node_that_is_removed_from_the_network_leaves_the_others_equal() {
    let (refused, seeds) = total_of(80, simulator::Plan::revoking, |outcome| outcome.refused);
    assert!(refused >= seeds, "only {refused} links were refused");
}

/// What it is let do arrives, nothing else does, and the day it is trusted with everything all are equal.
#[test]
fn a_node_that_is_limited_gets_and_gives_what_it_may_and_nothing_else() {
    let (limits, seeds) = total_of(120, simulator::Plan::limiting, |outcome| outcome.limits);
    assert!(limits >= 3 * seeds, "the limit was another one only {limits} times");
}

/// Some are linked with nobody. Visits are broken off, several come at once, and what lies there is damaged.
#[test]
fn nodes_that_meet_in_a_bucket_are_equal_after_whatever_befell_it() {
    let (taken, seeds) = total_of(100, simulator::Plan::bucket, |outcome| outcome.taken_bundles);
    assert!(taken >= 10 * seeds, "only {taken} bundles came by a bucket");
}

/// Its clock had been ahead by years, and so was the number of what it had left: it said at each visit anew for which files it asks.
#[test]
fn a_node_whose_clock_was_ahead_says_once_for_which_files_it_asks() {
    let plan = simulator::Plan::bucket_with_files(4);
    simulator::run_plan(4, plan).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Its maker had a part of a snapshot and wrote upon that: others had all of the bundle, and said that parts of it are missing.
#[test]
fn a_bundle_that_waits_for_what_another_one_brings_is_not_refused() {
    simulator::run(864).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Two lives of a node had named a record under one dot, in capitals and not, and another record held that name.
#[test]
fn a_repair_that_changes_nothing_but_capitals_reaches_the_name_that_shows() {
    let plan = simulator::Plan::forked_bucket(300_659).with_folder();
    simulator::run_plan(300_659, plan).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Links are few or none: that states differ shows in the bucket.
#[test]
fn two_lives_of_a_node_that_meet_in_a_bucket_become_one_state() {
    let (states, seeds) =
        total_of(40, simulator::Plan::forked_bucket, |outcome| outcome.left_states);
    assert!(
        states >= seeds / 4,
        "only {states} states were left for those whose own was another one"
    );
}

/// Each step of some visits, one run a step, before what is asked for there and after it.
#[test]
fn a_visit_to_a_bucket_that_is_broken_off_at_any_step_loses_nothing() {
    for by_snapshot in [false, true] {
        break_everywhere(5, &simulator::Plan::calm_bucket(by_snapshot));
    }
}

/// One run a step.
fn break_everywhere(seed: u64, plan: &simulator::Plan) {
    let (mut step, mut steps) = (0, 1);
    while step < steps {
        step += 1;
        let run = simulator::run_broken_at(seed, plan.clone(), step);
        steps = run.unwrap_or_else(|e| panic!("{e}"));
    }
    assert!(steps > 50, "only {steps} steps");
}

/// Each request of some visits to a store.
#[test]
fn a_visit_that_brings_files_and_is_broken_off_at_any_request_loses_nothing() {
    break_everywhere(6, &simulator::Plan::calm_store());
}

/// What a store does with requests, it does before it fails, some time after that, or not at all.
#[test]
fn files_come_by_a_store_that_fails_to_all_who_want_them_and_go_from_it() {
    let (taken, seeds) =
        total_of(60, simulator::Plan::bucket_with_files, |outcome| outcome.taken_files);
    assert!(taken >= 3 * seeds, "only {taken} files came by a bucket");
}
