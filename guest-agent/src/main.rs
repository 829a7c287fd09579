//! Entry point of PID 1: mounts, listener, the call home, then HTTP for ever. Under another init, as a
//! service of it, the same without the mounts, which are that init's.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use volant_protocol::{AGENT_PORT, HOST_PORT, ShutdownMode};
use volary::http::{Agent, serve};
use volary::{init, reap};

/// Pause after a failed accept (out of descriptors): others may close some meanwhile.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections that wait to be accepted. The package's own number is 128, too few for a burst.
const CONNECTIONS_WAITING_MAX: i32 = 1024;

/// `volantd doctor` reads it in the file, without running it; the end of the line is the version's end there.
const VERSION: &str = concat!("volary version ", env!("CARGO_PKG_VERSION"), "\n");

fn main() -> ExitCode {
    // systemd runs what is in its folder system-shutdown at the very end (systemd-shutdown(8)): without
    // ACPI nothing else tells the machine that it is over.
    match std::env::args().nth(1).as_deref() {
        Some("poweroff" | "halt") => init::end(ShutdownMode::Poweroff),
        Some("reboot" | "kexec") => return ExitCode::SUCCESS,
        Some("--version") => return print_version(),
        _ => {}
    }
    if init::is_init() {
        init::mount_first();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return init::fail(&format!("runtime: {error}")),
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => init::fail(&format!("{error}")),
    }
}

#[expect(clippy::print_stdout, reason = "the answer to --version")]
fn print_version() -> ExitCode {
    print!("{VERSION}");
    ExitCode::SUCCESS
}

async fn run() -> std::io::Result<()> {
    let reaper = reap::Reaper::start()?;
    let agent = Arc::new(Agent::new(reaper));
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_PORT))?;
    // The kernel refuses a connection for which there is no room: as many as the host may open.
    rustix::net::listen(&listener, CONNECTIONS_WAITING_MAX)?;
    match VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, HOST_PORT)).await {
        Ok(home) => drop(tokio::spawn(serve(home, Arc::clone(&agent)))),
        // A service that was restarted: the host knows it already.
        Err(_) if !init::is_init() => {}
        Err(error) => return Err(error),
    }
    if init::is_init() {
        init::mount_rest();
        init::shut_down_on_signals(&agent)?;
    }
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&agent)));
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}
