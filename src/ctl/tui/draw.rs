//! The state as it is seen. Without colors, what they tell is told by bold and reversed text.

use ratatui::Frame;
use ratatui::layout::{Constraint, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TextLine, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, Wrap};

use crate::ctl::tui::keys::{HELP, hints};
use crate::ctl::tui::layout::{Areas, layout, pane_titles, subject_titles};
use crate::ctl::tui::line::Line;
use crate::ctl::tui::state::{Focus, Link, Mode, Pane, State, Subject};

/// A terminal that is smaller shows only that it is.
const SIZE_MIN: (u16, u16) = (40, 10);

/// Draws all of it.
pub fn draw(state: &State, frame: &mut Frame) {
    let size = frame.area();
    if size.width < SIZE_MIN.0 || size.height < SIZE_MIN.1 {
        let text = format!("at least {} x {} characters are needed", SIZE_MIN.0, SIZE_MIN.1);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), size);
        return;
    }
    let areas = layout(state);
    head(state, frame, areas.head);
    subjects(state, frame, areas.subjects);
    if 0 < areas.table.height {
        table(state, frame, &areas);
    }
    if 0 < areas.pane.height {
        pane(state, frame, &areas);
    }
    status(state, frame, areas.status);
    foot(state, frame, areas.foot);
    if state.mode == Mode::Help {
        help(frame, size);
    }
}

fn colored(state: &State, color: Color) -> Style {
    if state.colors { Style::new().fg(color) } else { Style::new() }
}

fn head(state: &State, frame: &mut Frame, area: Rect) {
    let count = |status: &str| state.vms.iter().filter(|vm| vm.status == status).count();
    let up = count("running");
    let failed = count("failed");
    let mut fleet = format!("{} VMs, {up} running", state.vms.len());
    if 0 < failed {
        fleet.push_str(&format!(", {failed} failed"));
    }
    let left = format!(" volant {}  {fleet}  {}", state.version, state.place);
    let (link, style) = match &state.link {
        Link::Connecting => ("◌ connecting ", colored(state, Color::Yellow)),
        Link::Up => ("● connected ", colored(state, Color::Green)),
        Link::Lost(_) => {
            ("◌ reconnecting ", colored(state, Color::Red).add_modifier(Modifier::REVERSED))
        }
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(left).style(bold), area);
    frame.render_widget(Paragraph::new(Span::styled(link, style)).right_aligned(), area);
}

fn subjects(state: &State, frame: &mut Frame, area: Rect) {
    let mut spans = vec![Span::raw(" ")];
    for (subject, _, text) in subject_titles() {
        spans.push(chosen(text, subject == state.subject));
    }
    if !state.filter.is_empty() {
        spans.push(Span::raw(format!("  filter: {}", state.filter)));
    }
    frame.render_widget(TextLine::from(spans), area);
}

fn chosen<'a>(text: String, is_chosen: bool) -> Span<'a> {
    let style = if is_chosen { Modifier::REVERSED | Modifier::BOLD } else { Modifier::empty() };
    Span::styled(text, Style::new().add_modifier(style))
}

fn frame_style(state: &State, focus: Focus) -> Style {
    match state.focus == focus {
        true => colored(state, Color::Cyan).add_modifier(Modifier::BOLD),
        false => Style::new().add_modifier(Modifier::DIM),
    }
}

fn table(state: &State, frame: &mut Frame, areas: &Areas) {
    let rows = state.rows();
    let selection = state.selection();
    let shown = rows.iter().enumerate().skip(selection.offset).take(areas.rows_height().into());
    let drawn = shown.map(|(index, row)| {
        let cells = row.cells.iter().enumerate().map(|(column, text)| {
            let is_status = state.subject == Subject::Vms && column == 1;
            let style = if is_status { status_style(state, text) } else { Style::new() };
            Cell::from(Span::styled(text.clone(), style))
        });
        let is_marked = index == selection.index;
        let marked = if is_marked { Modifier::REVERSED } else { Modifier::empty() };
        TableRow::new(cells).style(Style::new().add_modifier(marked))
    });
    let header = TableRow::new(state.header().iter().copied())
        .style(Style::new().add_modifier(Modifier::BOLD));
    let count = format!(" {} {} ", rows.len(), state.subject.title());
    let block = Block::bordered().title(count).border_style(frame_style(state, Focus::Table));
    let widget = Table::new(drawn, widths(state.subject)).header(header).block(block);
    frame.render_widget(widget, areas.table);
}

fn widths(subject: Subject) -> Vec<Constraint> {
    match subject {
        Subject::Vms => vec![
            Constraint::Min(10),
            Constraint::Length(10),
            Constraint::Length(5),
            Constraint::Length(10),
            Constraint::Length(15),
            Constraint::Max(30),
        ],
        Subject::Plugins => vec![
            Constraint::Min(12),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(4),
            Constraint::Fill(1),
        ],
        Subject::Images => vec![
            Constraint::Fill(1),
            Constraint::Length(12),
            Constraint::Length(11),
            Constraint::Length(11),
        ],
        Subject::Volumes => vec![
            Constraint::Fill(1),
            Constraint::Length(8),
            Constraint::Length(11),
            Constraint::Fill(1),
        ],
    }
}

fn status_style(state: &State, status: &str) -> Style {
    match status {
        "running" | "ready" => colored(state, Color::Green),
        "failed" | "unhealthy" => colored(state, Color::Red).add_modifier(Modifier::BOLD),
        "starting" | "stopping" | "deleting" | "restarting" => colored(state, Color::Yellow),
        _ => Style::new().add_modifier(Modifier::DIM),
    }
}

fn pane(state: &State, frame: &mut Frame, areas: &Areas) {
    let titles = pane_titles(areas.pane).map(|(pane, _, text)| chosen(text, pane == state.pane));
    let mut block = Block::bordered()
        .title(TextLine::from(titles.collect::<Vec<_>>()))
        .border_style(frame_style(state, Focus::Pane));
    let text = match state.pane {
        Pane::Detail => &state.detail,
        Pane::Logs => &state.logs,
        Pane::Events => &state.events,
        Pane::Agui => &state.agui,
        Pane::Output => &state.output,
    };
    if text.is_behind() {
        block = block.title_bottom(" more below ");
    }
    frame.render_widget(block, areas.pane);
    let inside = areas.pane_inside();
    let lines: Vec<TextLine> = text
        .window(inside.width.into(), inside.height.into())
        .into_iter()
        .map(TextLine::from)
        .collect();
    if lines.is_empty() {
        let hint = match state.pane {
            Pane::Detail => "",
            Pane::Logs => "nothing has been written yet",
            Pane::Events => "what happens from now on is shown here",
            Pane::Agui => "AG-UI events of the fleet are shown here",
            Pane::Output => "commands that are typed after : write here",
        };
        let dim = Style::new().add_modifier(Modifier::DIM);
        frame.render_widget(Paragraph::new(hint).style(dim), inside);
    }
    frame.render_widget(Paragraph::new(lines), inside);
}

fn status(state: &State, frame: &mut Frame, area: Rect) {
    let bold = Modifier::BOLD;
    let line = match (&state.link, &state.status) {
        (Link::Lost(why), _) => {
            let style = colored(state, Color::Red).add_modifier(bold | Modifier::REVERSED);
            Span::styled(format!(" reconnecting: {why} "), style)
        }
        (_, Some((text, true))) => {
            Span::styled(format!(" {text}"), colored(state, Color::Red).add_modifier(bold))
        }
        (_, Some((text, false))) => Span::raw(format!(" {text}")),
        (_, None) if 0 < state.running => Span::raw(format!(" {} under way", state.running)),
        _ => Span::raw(""),
    };
    frame.render_widget(line, area);
}

fn foot(state: &State, frame: &mut Frame, area: Rect) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    match &state.mode {
        Mode::Command(line) => typed(frame, area, ":", line),
        Mode::Filter(line) => typed(frame, area, "/", line),
        Mode::Confirm(question) => {
            let text = format!(" {}  y: yes, any other key: no", question.text);
            frame.render_widget(Span::styled(text, bold.add_modifier(Modifier::REVERSED)), area);
        }
        Mode::Browse | Mode::Help => {
            let dim = Style::new().add_modifier(Modifier::DIM);
            frame.render_widget(Span::styled(format!(" {}", hints(state)), dim), area);
        }
    }
}

fn typed(frame: &mut Frame, area: Rect, sign: &str, line: &Line) {
    let before = line.before().chars().count();
    // The cursor stays in sight.
    let room = usize::from(area.width.saturating_sub(3));
    let hidden = before.saturating_sub(room);
    let shown: String = line.text().chars().skip(hidden).collect();
    frame.render_widget(Span::raw(format!("{sign}{shown}")), area);
    let column = u16::try_from(before - hidden + 1).unwrap_or(0);
    frame.set_cursor_position(Position::new(area.x + column, area.y));
}

fn help(frame: &mut Frame, size: Rect) {
    let width = 78.min(size.width);
    let height = u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX).min(size.height);
    let area = Rect::new((size.width - width) / 2, (size.height - height) / 2, width, height);
    let lines = HELP.iter().map(|(keys, what)| TextLine::from(format!(" {keys:<25} {what}")));
    let block = Block::bordered().title(" Keys ").title_bottom(" any key goes on ");
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
}
