//! Makes the data folder of this release that later ones must understand: `release FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!(
            "say where: release tests/tests/fixtures/release-{}.tar.zst",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::from(2);
    };
    atoll_tests::release::make(&file).await;
    println!("{} holds what this release leaves", file.display());
    ExitCode::SUCCESS
}
