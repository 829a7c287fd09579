//! What keys do where nothing is typed. The help shows this list, and docs/tui.md has it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::ctl::tui::state::{Pane, State, Subject};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Move(isize),
    Page(isize),
    First,
    Last,
    List(Subject),
    Show(Pane),
    NextFocus,
    Zoom,
    Open,
    Start,
    Stop,
    Restart,
    New,
    Delete,
    Toggle,
    Console,
    Shell,
    Exec,
    Command,
    Filter,
    Help,
    Back,
    Refresh,
    Suspend,
    Quit,
}

/// Keys, as the help shows them, and what they do.
pub const HELP: &[(&str, &str)] = &[
    ("1 2 3 4", "VMs, plugins, images, volumes"),
    ("↑ ↓ j k, PgUp PgDn, g G", "move, or scroll the pane"),
    ("Tab", "between table and pane"),
    ("d l e a o", "detail, logs, events, AG-UI, output of commands"),
    ("Enter", "open: detail, manifest, configuration"),
    ("z", "the whole terminal for what has the focus"),
    ("s  S  r", "start, stop, restart a VM"),
    ("c", "its serial console; Ctrl-] comes back"),
    ("x  X", "a shell in it; a command in it"),
    ("n", "new: a VM, plugin, image or volume"),
    ("D, Ctrl-D", "delete, after a yes"),
    ("E", "enable or disable a plugin"),
    (":", "any command of ctl; Tab completes, ↑ ↓ are the history"),
    ("/", "filter; Esc takes it away"),
    ("Ctrl-R  Ctrl-Z", "read all again; to the shell"),
    ("Esc", "back; ends commands that go on in the output"),
    ("q, Ctrl-C", "quit"),
    ("mouse", "click a row, a title; the wheel scrolls"),
];

/// What `key` does.
pub fn action(key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Action::Quit,
        KeyCode::Char('d') if control => Action::Delete,
        KeyCode::Char('r' | 'l') if control => Action::Refresh,
        KeyCode::Char('z') if control => Action::Suspend,
        // The original's.
        KeyCode::Char('a') if control => Action::Show(Pane::Agui),
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(c @ '1'..='4') => Action::List(Subject::ALL[c as usize - '1' as usize]),
        KeyCode::Char('j') | KeyCode::Down => Action::Move(1),
        KeyCode::Char('k') | KeyCode::Up => Action::Move(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::Char('g') | KeyCode::Home => Action::First,
        KeyCode::Char('G') | KeyCode::End => Action::Last,
        KeyCode::Tab | KeyCode::BackTab => Action::NextFocus,
        KeyCode::Enter => Action::Open,
        KeyCode::Esc => Action::Back,
        KeyCode::Char('z') => Action::Zoom,
        KeyCode::Char('s') => Action::Start,
        KeyCode::Char('S') => Action::Stop,
        KeyCode::Char('r') => Action::Restart,
        KeyCode::Char('n') => Action::New,
        KeyCode::Char('D') | KeyCode::Delete => Action::Delete,
        KeyCode::Char('E') => Action::Toggle,
        KeyCode::Char('c') => Action::Console,
        KeyCode::Char('x') => Action::Shell,
        KeyCode::Char('X') => Action::Exec,
        KeyCode::Char(':') => Action::Command,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('?') => Action::Help,
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char(c) => Action::Show(Pane::ALL.into_iter().find(|(_, key, _)| *key == c)?.0),
        _ => return None,
    })
}

/// The most useful keys for what is shown, in a line.
pub fn hints(state: &State) -> &'static str {
    match state.subject {
        Subject::Vms => {
            "? help  : command  / filter  s start  S stop  c console  x shell  n new  D delete  r restart  q quit"
        }
        Subject::Plugins => {
            "? help  : command  / filter  Enter manifest  E enable/disable  n install  D remove  q quit"
        }
        Subject::Images => "? help  : command  / filter  Enter inspect  n pull  D remove  q quit",
        Subject::Volumes => "? help  : command  / filter  n create  D remove  q quit",
    }
}
