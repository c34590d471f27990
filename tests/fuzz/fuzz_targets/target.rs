//! A fuzz target of the tests under libFuzzer: the one that `ATOLL_FUZZ_TARGET` names; without a name, it lists them. With
//! `ATOLL_FUZZ_SEEDS=FOLDER` it writes the seeds of the target there and ends.

#![no_main]

use atoll_tests::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::Path;
use std::sync::OnceLock;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

thread_local! {
    /// What the last panic said.
    static SAID: Cell<String> = const { Cell::new(String::new()) };
}

fn choose() {
    let name = std::env::var("ATOLL_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(i32::from(!name.is_empty()));
    };
    if let Some(folder) = std::env::var_os("ATOLL_FUZZ_SEEDS") {
        for (n, seed) in (target.seeds)().into_iter().enumerate() {
            let file = Path::new(&folder).join(format!("seed-{n}"));
            std::fs::write(file, seed).expect("a seed is written");
        }
        std::process::exit(0);
    }
    // libFuzzer's own hook ends the process, but a panic that the code under test catches is none of its failures.
    set_hook(Box::new(|panic| SAID.set(panic.to_string())));
    CHOSEN.get_or_init(|| target);
}

fuzz_target!(init: choose(), |data: &[u8]| {
    let target = CHOSEN.get().expect("it was chosen");
    if catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_err() {
        eprintln!("{} fails: {}", target.name, SAID.take());
        std::process::abort();
    }
});
