//! Logging: tracing events as text on stderr.

use tracing_subscriber::EnvFilter;

/// Installs the subscriber. Under systemd the journal has its own clock.
///
/// # Errors
/// The filter cannot be parsed, or there is a subscriber already.
pub fn install(filter: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    }
}
