//! Where things are on the terminal. Drawing and the mouse share it.

use ratatui::layout::{Constraint, Layout, Position, Rect};

use crate::ctl::tui::state::{Focus, Pane, State, Subject};

/// From this width on, table and pane are side by side.
const WIDE_COLUMNS: u16 = 110;

/// The parts of the terminal. A part that is not shown has no size.
#[derive(Clone, Copy, Debug)]
pub struct Areas {
    pub head: Rect,
    pub subjects: Rect,
    /// With its frame and headings.
    pub table: Rect,
    /// With its frame.
    pub pane: Rect,
    pub status: Rect,
    pub foot: Rect,
}

impl Areas {
    /// Rows of the table that are shown: without frame and headings.
    pub fn rows_height(&self) -> u16 {
        self.table.height.saturating_sub(3)
    }

    /// The pane without its frame.
    pub fn pane_inside(&self) -> Rect {
        inside(self.pane)
    }
}

fn inside(area: Rect) -> Rect {
    Rect {
        x: area.x + 1,
        y: area.y + 1,
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(2),
    }
}

/// Where the parts are.
pub fn layout(state: &State) -> Areas {
    let all = Rect::new(0, 0, state.size.0, state.size.1);
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(1),
    ];
    let [head, subjects, body, status, foot] = Layout::vertical(rows).areas(all);
    let none = Rect::new(body.x, body.y, 0, 0);
    let [table, pane] = match (state.zoomed, state.focus) {
        (true, Focus::Table) => [body, none],
        (true, Focus::Pane) => [none, body],
        _ if WIDE_COLUMNS <= body.width => {
            Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(body)
        }
        _ => Layout::vertical([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(body),
    };
    Areas { head, subjects, table, pane, status, foot }
}

/// What is under the mouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// A row of the table, the first that is shown being 0.
    Row(usize),
    Pane,
    Title(Pane),
    Subject(Subject),
}

/// The titles of the lists, each with its first column.
pub fn subject_titles() -> impl Iterator<Item = (Subject, u16, String)> {
    let mut column = 1;
    Subject::ALL.into_iter().zip(1..).map(move |(subject, number)| {
        let text = format!(" {number} {} ", subject.title());
        let at = column;
        column += width(&text);
        (subject, at, text)
    })
}

/// The titles of the panes, each with its first column.
pub fn pane_titles(area: Rect) -> impl Iterator<Item = (Pane, u16, String)> {
    let mut column = area.x + 1;
    Pane::ALL.into_iter().map(move |(pane, key, title)| {
        let text = format!(" {key} {title} ");
        let at = column;
        column += width(&text);
        (pane, at, text)
    })
}

fn width(text: &str) -> u16 {
    u16::try_from(text.chars().count()).unwrap_or(u16::MAX)
}

/// What is at a place.
pub fn hit(state: &State, column: u16, row: u16) -> Option<Hit> {
    let areas = layout(state);
    let at = Position::new(column, row);
    let under = |start: u16, text: &str| (start..start + width(text)).contains(&column);
    if areas.subjects.contains(at) {
        let found = subject_titles().find(|(_, start, text)| under(*start, text));
        return found.map(|(subject, ..)| Hit::Subject(subject));
    }
    if areas.pane.contains(at) && row == areas.pane.y {
        let found = pane_titles(areas.pane).find(|(_, start, text)| under(*start, text));
        return Some(found.map_or(Hit::Pane, |(pane, ..)| Hit::Title(pane)));
    }
    if areas.pane.contains(at) {
        return Some(Hit::Pane);
    }
    let first = areas.table.y + 2;
    let is_row = areas.table.contains(at) && (first..first + areas.rows_height()).contains(&row);
    is_row.then(|| Hit::Row(usize::from(row - first)))
}
