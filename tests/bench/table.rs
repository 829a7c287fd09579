//! Figures with their spread: a table for people, JSON for later.

use std::fmt;

use serde_json::json;

/// Figures of one thing, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn of(value: f64) -> Series {
        Series(vec![value])
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Each value in proportion to that of `other` in the same turn.
    pub(crate) fn by(&self, other: &Series) -> Series {
        Series(self.0.iter().zip(&other.0).map(|(value, other)| value / other).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The middle one; of an even number the mean of the two in the middle.
    pub(crate) fn median(&self) -> Option<f64> {
        let values = self.sorted();
        let (low, high) =
            (values.get((values.len().checked_sub(1)?) / 2)?, values.get(values.len() / 2)?);
        Some((low + high) / 2.0)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.sorted();
        match (self.median(), values.first(), values.last()) {
            (Some(median), Some(min), Some(max)) if 1 < values.len() => {
                write!(f, "{median:>9.2}   {min:>9.2} … {max:.2}")
            }
            (Some(median), ..) => write!(f, "{median:>9.2}"),
            _ => write!(f, "nothing measured"),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Ms,
    Kib,
    Count,
    Ratio,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Unit::Ms => "ms",
            Unit::Kib => "KiB",
            Unit::Count => "",
            Unit::Ratio => "x",
        }
    }
}

/// A line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    unit: Unit,
    series: Series,
    at_most: Option<f64>,
}

impl Row {
    pub(crate) fn new(name: &str, unit: Unit, series: Series) -> Row {
        Row { name: name.to_owned(), unit, series, at_most: None }
    }

    /// A step of the boot timeline: what it took since the step before.
    pub(crate) fn step(word: &str, series: Series) -> Row {
        Row::new(&format!("  step {word}"), Unit::Ms, series)
    }

    pub(crate) fn at_most(mut self, limit: f64) -> Row {
        self.at_most = Some(limit);
        self
    }

    pub(crate) fn is_missed(&self) -> bool {
        let over = |limit| self.series.median().is_none_or(|median| limit < median);
        self.at_most.is_some_and(over)
    }
}

/// Prints the rows and writes them to `$VOLANT_OUT/<name>.json`.
pub(crate) fn publish(name: &str, rows: &[Row]) {
    println!("\n{:<50} {:>9}   {:>9} … max", "", "median", "min");
    for row in rows {
        let verdict = match (row.at_most, row.is_missed()) {
            (None, _) => String::new(),
            (Some(limit), false) => format!("   (at most {limit}: met)"),
            (Some(limit), true) => format!("   (at most {limit}: MISSED)"),
        };
        println!("{:<50} {} {}{verdict}", row.name, row.series, row.unit.word());
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name.trim(),
                "unit": row.unit.word(),
                "median": row.series.median(),
                "values": row.series.0,
                "at_most": row.at_most,
            })
        })
        .collect();
    let Some(folder) = std::env::var_os("VOLANT_OUT") else { return };
    let path = std::path::Path::new(&folder).join(format!("{name}.json"));
    std::fs::write(path, serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
}
