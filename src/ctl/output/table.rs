//! Columns without lines between them, so that people and `awk` read them alike.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

/// Columns that are as narrow as this are not made narrower.
const COLUMNS_MIN: u16 = 40;

/// A table as text. `columns` is the width of the terminal, if it goes to one.
pub fn text(
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    columns: Option<u16>,
    colors: bool,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty().set_header(header.iter().copied());
    if colors {
        table.enforce_styling();
    }
    if let Some(columns) = columns {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(columns.max(COLUMNS_MIN));
    }
    for row in rows {
        let cells = row.into_iter().zip(header).map(|(text, heading)| {
            let color = (colors && *heading == "STATUS").then(|| color_of(&text)).flatten();
            let cell = Cell::new(text);
            color.map_or(cell.clone(), |color| cell.fg(color))
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text: String =
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<Vec<_>>().concat();
    if table.is_empty() {
        text.truncate(text.find('\n').map_or(0, |end| end + 1));
    }
    text
}

fn color_of(status: &str) -> Option<Color> {
    match status {
        "running" | "ready" | "yes" => Some(Color::Green),
        "failed" | "unhealthy" => Some(Color::Red),
        "starting" | "stopping" | "deleting" | "restarting" => Some(Color::Yellow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_with_text() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["one", "running"]), row(["another", "-"])];
        let plain = text(&["NAME", "STATUS"], rows.clone().into_iter(), None, false);
        assert_eq!(plain, "NAME     STATUS\none      running\nanother  -\n");
        let colored = text(&["NAME", "STATUS"], rows.clone().into_iter(), None, true);
        assert!(colored.contains("\u{1b}["), "{colored:?}");
        assert_eq!(text(&["NAME"], std::iter::empty(), None, false), "NAME\n");
        let long = row([&"word ".repeat(40), "running"]);
        let narrow = text(&["NAME", "STATUS"], [long].into_iter(), Some(44), false);
        assert!(narrow.lines().all(|line| line.chars().count() <= 44), "{narrow}");
    }
}
