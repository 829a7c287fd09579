//! volary: PID 1 of a volant guest.
//!
//! One thread, one runtime. `main.rs` brings the guest up and dials the host; everything the host
//! asks arrives as HTTP/1.1 on vsock connections and is answered by `http`.

pub mod console;
pub mod files;
pub mod http;
pub mod init;
pub mod network;
pub mod observe;
pub mod process;
pub mod readiness;
pub mod reap;
pub mod root;
pub mod user;
pub mod volumes;
pub mod workload;
