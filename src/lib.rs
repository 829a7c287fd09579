//! volantd: a microVM engine in one process. The modules, in reading order.
//!
//! `docs/architecture.md` draws the whole; `tests/tidy.rs` holds the layering.

/// The host's side of the guest agent.
pub mod agent;
/// REST, server-sent events and WebSocket over the orchestrator.
pub mod api;
/// Kernels and initramfs images.
pub mod artifact;
/// Command line: plain data, no effects.
pub mod cli;
/// Flags, environment and file resolved into one validated configuration.
pub mod config;
/// `volantd ctl`: an HTTP client.
pub mod ctl;
/// Composition root of the daemon.
pub mod daemon;
/// What a host must have, and what is wrong with this one.
pub mod doctor;
/// What workloads have written, kept on the host.
pub mod logs;
/// The nouns of the domain.
pub mod model;
/// Bridge, TAP devices, addresses, nftables.
pub mod net;
/// Who may change a VM, in which order, and what happens after a crash.
pub mod orchestrator;
/// Plugins' manifests.
pub mod plugin;
/// HTTP and WebSocket from outside to a guest.
pub mod proxy;
/// What turns a host into one for volantd, and back.
pub mod setup;
/// SQLite.
pub mod store;
/// Safe wrappers over system calls.
pub mod sys;
/// Logging.
pub mod telemetry;
/// One machine: memory, vCPUs, devices, boot.
pub mod vmm;
/// The JSON shapes of the public API.
pub mod wire;
