//! The kernel command line that every guest gets.

use crate::model::VmSpec;

/// Whatever the console: no chatter (a byte on the serial port is two exits), a panic ends the
/// machine at once by a triple fault, and no probing of what is not there (docs/boot.md).
const COMMON: &str = "quiet loglevel=1 panic=-1 reboot=t rdinit=/init nomodule \
    random.trust_cpu=on tsc=reliable no_timer_check rcupdate.rcu_expedited=1";
const WITH_CONSOLE: &str = "console=ttyS0 8250.nr_uarts=1";
const WITHOUT_CONSOLE: &str = "8250.nr_uarts=0";

/// The words for `spec`, its own last so that they win.
pub fn for_spec(spec: &VmSpec) -> String {
    let console = if spec.console { WITH_CONSOLE } else { WITHOUT_CONSOLE };
    format!("{console} {COMMON} {}", spec.kernel_cmdline).trim_end().to_owned()
}
