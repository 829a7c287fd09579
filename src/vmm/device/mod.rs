//! What sits on the port bus: the 16550 and the few legacy ports a kernel probes.

mod serial;

pub use serial::SerialPort;
