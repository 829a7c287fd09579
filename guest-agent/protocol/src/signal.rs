//! Signals by name, as people, manifests and images write them.

/// Names of Linux's signals on x86-64 by number, from 1 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// SIGRTMIN of the C libraries, which keep the first ones for themselves.
const REAL_TIME_MIN: u8 = 34;
/// The last one.
const MAX: u8 = 64;

/// Number of a signal: `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3`, in any case; `None` for anything else.
pub fn signal_number(text: &str) -> Option<u8> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<u8>() {
        return (1..=MAX).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let more = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<u8>().ok()? };
        return REAL_TIME_MIN.checked_add(more).filter(|number| *number <= MAX);
    }
    let index = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(index + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let table = [
            ("SIGTERM", Some(15)),
            ("usr1", Some(10)),
            ("winch", Some(28)),
            ("9", Some(9)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("RTMIN+31", None),
            ("RTMIN3", None),
            ("0", None),
            ("65", None),
            ("NONE", None),
            ("", None),
            ("SIG", None),
        ];
        for (text, number) in table {
            assert_eq!(signal_number(text), number, "{text:?}");
        }
    }
}
