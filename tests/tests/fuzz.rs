//! The fuzz targets over good inputs, all that ever failed, and some thousands of damaged copies: the same ones each time but
//! for keys. `ATOLL_FUZZ=N` runs N a target.

use atoll_tests::fuzz::{TARGETS, Target, mutated};
use atoll_tests::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const INPUTS: u64 = 600;
/// What this process may take at its height, whatever the inputs say of themselves.
const MAX_MEMORY_KIB: u64 = 1 << 20;

fn inputs() -> u64 {
    std::env::var("ATOLL_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(INPUTS)
}

/// Runs one, and keeps the input if it fails.
fn run(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let file = std::env::temp_dir().join(format!("atoll-fuzz-{}", target.name));
        std::fs::write(&file, input).unwrap();
        panic!(
            "{} fails: {} holds the input; keep it in tests/fuzz/found",
            target.name,
            file.display()
        );
    }
}

fn found(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found").join(target.name);
    let files = std::fs::read_dir(folder).into_iter().flatten();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.extend(found(target));
    seeds.iter().for_each(|seed| run(target, seed));
    let mut rng = Rng::new(name.len() as u64);
    for _ in 0..inputs() {
        let (seed, other) = (&seeds[rng.below(seeds.len())], &seeds[rng.below(seeds.len())]);
        run(target, &mutated(&mut rng, seed, other));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    assert!(kib.unwrap_or_default() < MAX_MEMORY_KIB, "{kib:?} KiB of memory");
}

#[test]
fn frames_come_out_the_same_however_they_are_cut() {
    fuzz("frames");
}

#[test]
fn a_hello_that_can_be_read_can_be_written() {
    fuzz("hello");
}

#[test]
fn a_link_survives_whatever_is_said_on_it() {
    fuzz("session");
}

#[test]
fn a_link_of_two_that_have_or_may_have_a_part_survives_whatever_is_said_on_it() {
    fuzz("limited");
}

#[test]
fn a_store_survives_whatever_ops_come() {
    fuzz("ops");
}

#[test]
fn a_store_survives_whatever_seals_come() {
    fuzz("seal");
}

#[test]
fn a_store_survives_whatever_parts_of_snapshots_come() {
    fuzz("chunk");
}

#[test]
fn a_store_survives_whatever_bundles_are_brought() {
    fuzz("volume");
}

#[test]
fn a_store_survives_whatever_a_peer_signs_as_parts_of_a_bundle() {
    fuzz("signed");
}

#[test]
fn a_store_survives_whatever_its_disk_makes_of_a_block() {
    fuzz("block");
}

#[test]
fn no_slice_proves_what_is_not_so() {
    fuzz("slice");
}

#[test]
fn what_is_asked_of_blobs_and_can_be_read_can_be_written() {
    fuzz("request");
}

#[test]
fn a_grant_that_can_be_read_can_be_written() {
    fuzz("grant");
}

#[test]
fn a_ticket_that_can_be_read_can_be_written() {
    fuzz("ticket");
}

#[test]
fn an_objects_name_that_can_be_read_can_be_written() {
    fuzz("object_name");
}

#[test]
fn every_target_is_run_here() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(
        names,
        [
            "frames",
            "hello",
            "session",
            "limited",
            "ops",
            "seal",
            "chunk",
            "volume",
            "signed",
            "block",
            "slice",
            "request",
            "grant",
            "ticket",
            "object_name"
        ]
    );
}
