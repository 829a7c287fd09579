//! Safe wrappers over system calls that no library wraps. No policy, no names, no tokio.

pub mod accounts;
pub mod activation;
pub mod crash;
pub mod tap;
