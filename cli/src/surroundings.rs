//! What a process asks of its system before it does anything: that its files are its owner's alone, and that it
//! may have enough of them open. Nothing here fails: what is refused stays as it was.

/// Files that one node keeps open beside its connections: database, index, blobs, logs.
#[cfg(unix)]
const WANTED_FILES: u64 = 16_384;

pub fn prepare() {
    #[cfg(unix)]
    {
        // Databases, keys, backups, exports: none of them is for other accounts.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        raise_open_files();
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
