//! What a process asks of its system before it does anything: that its files are its owner's alone, that it may have
//! enough of them open, and that memory goes back as soon as it is free. Nothing here fails: what is refused stays as it
//! was.

/// Files that one node keeps open beside its connections: database, index, blobs, logs.
#[cfg(unix)]
const WANTED_FILES: u64 = 16_384;

/// How allocators are set: mimalloc gives pages back at once, not a second later or, in threads that wait, never; and the
/// libraries in C share two heaps, not eight for each core.
#[cfg(unix)]
const ALLOCATORS: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "0"), ("MALLOC_ARENA_MAX", "2")];

pub fn prepare() {
    #[cfg(unix)]
    {
        // Databases, keys, backups, exports: none of them is for other accounts.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        raise_open_files();
    }
}

/// For a process that stays. Allocators read their settings before `main` begins, so the process becomes the same program
/// anew, under the same number, with the settings that its environment lacks.
pub fn keep_memory_small() {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let lacks = |(name, _): &&(&str, &str)| std::env::var_os(name).is_none();
        let lacking: Vec<_> = ALLOCATORS.iter().filter(lacks).copied().collect();
        if lacking.is_empty() {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut args = std::env::args_os();
        let mut anew = std::process::Command::new(program);
        anew.arg0(args.next().unwrap_or_default()).args(args).envs(lacking);
        // Returns only if it cannot be done; then this process goes on as it is.
        let _ = anew.exec();
    }
}

/// Many systems begin with 1,024, which a busy server's connections alone use up.
#[cfg(unix)]
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(u64::MAX);
    let wanted = WANTED_FILES.min(most);
    if now.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum });
    }
}
