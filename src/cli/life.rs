//! Arguments on how long a VM may live.

use clap::{Args, ValueEnum};

/// Arguments of ttl.
#[derive(Debug, Args)]
pub struct TtlArgs {
    /// Name of the VM
    pub name: String,
    /// How long it may live from now: 90s, 30m, 12h, 7d; without an end if absent
    #[arg(value_name = "TTL", value_parser = duration_ms)]
    pub ttl_ms: Option<u64>,
    /// What follows the end of that time
    #[arg(long, value_enum, default_value = "delete")]
    pub on_expiry: OnExpiryArg,
}

/// How long a new VM may live.
#[derive(Debug, Args)]
pub struct LifeArgs {
    /// How long it may live: 90s, 30m, 12h, 7d; without an end if absent
    #[arg(long = "ttl", value_name = "TTL", value_parser = duration_ms)]
    pub ttl_ms: Option<u64>,
    /// What follows the end of that time
    #[arg(long, value_enum, default_value = "delete", requires = "ttl_ms")]
    pub on_expiry: OnExpiryArg,
}

/// What follows the end of a VM's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExpiryArg {
    /// It is deleted
    Delete,
    /// It is stopped
    Stop,
}

/// Milliseconds of a number and a unit.
fn duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err("a number and a unit: ms, s, m, h or d".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "begin with a number".to_owned())?;
    number.checked_mul(unit_ms).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let table = [
            ("90s", Some(90_000)),
            ("30m", Some(1_800_000)),
            ("500ms", Some(500)),
            ("2h", Some(7_200_000)),
            ("7d", Some(604_800_000)),
            ("90", None),
            ("s", None),
            ("1h30m", None),
            ("-1s", None),
            ("18446744073709551615d", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
    }
}
