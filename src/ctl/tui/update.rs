//! What happens to the interface: each event changes the state, and asks for effects.

use std::collections::BTreeSet;

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};

use crate::ctl::complete::{Kind, candidates};
use crate::ctl::tui::detail;
use crate::ctl::tui::keys::{Action, action};
use crate::ctl::tui::layout::{Hit, hit, layout};
use crate::ctl::tui::line::{Line, Typed, common};
use crate::ctl::tui::state::{Focus, Link, Mode, Pane, Question, State, Subject};
use crate::wire::{EventView, GuestMetricsView, ImageView, PluginView, VmView, VolumeView};

/// Command lines that are remembered.
const HISTORY_MAX: usize = 200;
/// Lines that a turn of the wheel moves.
const WHEEL_LINES: isize = 3;

/// Something has happened.
#[derive(Debug)]
pub enum Event {
    Key(KeyEvent),
    Mouse(MouseEvent),
    Resized(u16, u16),
    Tick,
    /// The daemon answers; its version.
    Linked(String),
    /// It does not, and why.
    Lost(String),
    Vms(Vec<VmView>),
    Plugins(Vec<PluginView>),
    Images(Vec<ImageView>),
    Volumes(Vec<VolumeView>),
    Measured(String, GuestMetricsView),
    Happened(Box<EventView>),
    /// Lines of the VM's log.
    Log(String, Vec<String>),
    Agui(String),
    /// What a plugin or an image is, in full.
    Described(Subject, String, String),
    /// What a command has written.
    Output(String),
    /// A command has ended: what it was, its exit code, or why it could not be done.
    Done {
        command: String,
        shown: bool,
        outcome: Result<u8, String>,
    },
}

/// Something to be done outside of the state.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Quit,
    Suspend,
    /// Read everything that is listed again.
    Refresh,
    /// Follow the log of this VM, and of no other.
    Follow(Option<String>),
    FollowAgui,
    Describe(Subject, String),
    /// A command of ctl; its output is shown in the pane, or only how it ended.
    Run {
        words: Vec<String>,
        shown: bool,
    },
    /// End the commands under way.
    Cancel,
}

/// Changes the state.
pub fn update(state: &mut State, event: Event) -> Vec<Effect> {
    let mut effects = match event {
        Event::Key(key) => key_typed(state, key),
        Event::Mouse(mouse) => mouse_used(state, mouse),
        other => {
            // What a command has changed is shown at once; not all of it is told by an event.
            let is_done = matches!(other, Event::Done { .. });
            told(state, other);
            if is_done { vec![Effect::Refresh] } else { Vec::new() }
        }
    };
    settle(state, &mut effects);
    effects
}

fn told(state: &mut State, event: Event) {
    match event {
        Event::Resized(columns, rows) => state.size = (columns, rows),
        Event::Tick => {
            state.status_ticks = state.status_ticks.saturating_sub(1);
            if state.status_ticks == 0 {
                state.status = None;
            }
        }
        Event::Linked(version) => {
            if matches!(state.link, Link::Lost(_)) {
                state.say("connected again", false);
            }
            (state.link, state.version) = (Link::Up, version);
        }
        Event::Lost(why) => state.link = Link::Lost(why),
        Event::Vms(vms) => {
            let names: BTreeSet<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
            state.loads.retain(|name, _| names.contains(name.as_str()));
            state.vms = vms;
        }
        Event::Plugins(plugins) => state.plugins = plugins,
        Event::Images(images) => state.images = images,
        Event::Volumes(volumes) => state.volumes = volumes,
        Event::Measured(name, view) => state.loads.entry(name).or_default().take(view),
        Event::Happened(event) => state.events.push(&short(&event)),
        Event::Log(name, lines) if state.logs_of.as_ref() == Some(&name) => {
            lines.iter().for_each(|line| state.logs.push(line));
        }
        Event::Agui(line) => state.agui.push(&line),
        Event::Described(subject, name, text)
            if state.described.as_ref() == Some(&(subject, name.clone())) =>
        {
            state.detail.fill(text.lines().map(str::to_owned));
        }
        Event::Output(text) => text.lines().for_each(|line| state.output.push(line)),
        Event::Done { command, shown, outcome } => done(state, &command, shown, outcome),
        // Of what is no longer shown.
        _ => {}
    }
}

/// With the time of day alone: the message has the name.
fn short(event: &EventView) -> String {
    let time = event.timestamp.get(11..19).unwrap_or(&event.timestamp);
    format!("{time} {:<11} {}", event.kind, event.message)
}

fn done(state: &mut State, command: &str, shown: bool, outcome: Result<u8, String>) {
    state.running = state.running.saturating_sub(1);
    let (text, is_bad) = match outcome {
        Ok(0) => (format!("{command}: done"), false),
        Ok(code) => (format!("{command}: exit code {code}"), true),
        Err(why) => (format!("{command}: {why}"), true),
    };
    if shown && is_bad {
        state.output.push(&text);
    }
    state.say(text, is_bad);
}

/// After any change: the mark is on a row that is shown, and what depends on it is asked for.
fn settle(state: &mut State, effects: &mut Vec<Effect>) {
    let height = usize::from(layout(state).rows_height());
    let rows = state.rows();
    state.selection_mut().settle(&rows, height);
    let wanted = (state.pane == Pane::Logs).then(|| state.vm().map(|vm| vm.name.clone())).flatten();
    if state.pane == Pane::Logs && wanted != state.logs_of {
        state.logs.clear();
        state.logs_of.clone_from(&wanted);
        effects.push(Effect::Follow(wanted));
    }
    if state.pane == Pane::Agui && !state.agui_follows {
        state.agui_follows = true;
        effects.push(Effect::FollowAgui);
    }
    if state.pane == Pane::Detail {
        detail::settle(state, effects);
    }
}

fn key_typed(state: &mut State, key: KeyEvent) -> Vec<Effect> {
    match std::mem::replace(&mut state.mode, Mode::Browse) {
        Mode::Browse => action(key).map(|action| act(state, action)).unwrap_or_default(),
        // Any key ends the help.
        Mode::Help => Vec::new(),
        Mode::Confirm(question) => match key.code {
            KeyCode::Char('y' | 'Y') => run(state, question.command, false),
            _ => {
                state.say("not done", false);
                Vec::new()
            }
        },
        Mode::Filter(mut line) => {
            match line.key(key, &[]) {
                Typed::Left => state.filter.clear(),
                Typed::Entered(text) => state.filter = text,
                Typed::Changed | Typed::Complete => {
                    state.filter = line.text();
                    state.mode = Mode::Filter(line);
                }
            }
            Vec::new()
        }
        Mode::Command(mut line) => match line.key(key, &state.history) {
            Typed::Left => Vec::new(),
            Typed::Entered(text) => entered(state, &text),
            Typed::Complete => {
                complete(state, &mut line);
                state.mode = Mode::Command(line);
                Vec::new()
            }
            Typed::Changed => {
                state.mode = Mode::Command(line);
                Vec::new()
            }
        },
    }
}

fn complete(state: &mut State, line: &mut Line) {
    let names = |kind| match kind {
        Kind::Vm => state.vms.iter().map(|vm| vm.name.clone()).collect(),
        Kind::Plugin => state.plugins.iter().map(|plugin| plugin.name.clone()).collect(),
        Kind::Image => state.images.iter().map(|image| image.reference.clone()).collect(),
        Kind::Volume => state.volumes.iter().map(|volume| volume.name.clone()).collect(),
    };
    let found = candidates(&line.before(), names);
    let mut word = common(&found.words);
    if found.words.len() == 1 {
        word.push(' ');
    }
    if found.word.len() < word.len() {
        line.replace(found.word.chars().count(), &word);
    }
    if 1 < found.words.len() {
        state.say(found.words.join("  "), false);
    }
}

fn entered(state: &mut State, text: &str) -> Vec<Effect> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    state.history.retain(|line| line != text);
    state.history.push(text.to_owned());
    if HISTORY_MAX < state.history.len() {
        state.history.remove(0);
    }
    match text {
        "q" | "quit" | "exit" => return vec![Effect::Quit],
        "help" => {
            state.mode = Mode::Help;
            return Vec::new();
        }
        _ => {}
    }
    let Some(words) = shlex::split(text) else {
        state.say("a quote is not closed", true);
        return Vec::new();
    };
    run(state, words, true)
}

fn run(state: &mut State, words: Vec<String>, shown: bool) -> Vec<Effect> {
    let is_tree = words.first().is_some_and(|word| word == "volantd" || word == "ctl");
    let words: Vec<String> = if is_tree {
        words.into_iter().skip_while(|word| word == "volantd" || word == "ctl").collect()
    } else {
        words
    };
    if shown {
        state.pane = Pane::Output;
        state.output.scroll(isize::MIN, 1);
        state.output.push(&format!("> {}", words.join(" ")));
    } else {
        state.say(format!("{} …", words.join(" ")), false);
    }
    state.running += 1;
    vec![Effect::Run { words, shown }]
}

fn act(state: &mut State, action: Action) -> Vec<Effect> {
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Suspend => return vec![Effect::Suspend],
        Action::Refresh => return vec![Effect::Refresh],
        Action::Move(by) => step(state, by),
        Action::Page(by) => {
            let height = isize::try_from(layout(state).rows_height().max(1)).unwrap_or(1);
            step(state, by * height);
        }
        Action::First => step(state, isize::MIN / 2),
        Action::Last => step(state, isize::MAX / 2),
        Action::List(subject) => {
            (state.subject, state.focus, state.described) = (subject, Focus::Table, None);
        }
        Action::Show(pane) => state.pane = pane,
        Action::NextFocus => {
            state.focus = match state.focus {
                Focus::Table => Focus::Pane,
                Focus::Pane => Focus::Table,
            };
        }
        Action::Zoom => state.zoomed = !state.zoomed,
        Action::Open => {
            (state.pane, state.focus) = (Pane::Detail, Focus::Pane);
        }
        Action::Command => state.mode = Mode::Command(Line::default()),
        Action::Filter => state.mode = Mode::Filter(Line::of(&state.filter)),
        Action::Help => state.mode = Mode::Help,
        Action::Back => return back(state),
        Action::New => state.mode = Mode::Command(Line::of(new_line(state.subject))),
        Action::Start
        | Action::Stop
        | Action::Restart
        | Action::Delete
        | Action::Toggle
        | Action::Console
        | Action::Shell
        | Action::Exec => return work(state, action),
    }
    Vec::new()
}

fn new_line(subject: Subject) -> &'static str {
    match subject {
        Subject::Vms => "vms create ",
        Subject::Plugins => "plugins install --manifest ",
        Subject::Images => "images pull ",
        Subject::Volumes => "volumes create --size 1024 ",
    }
}

fn back(state: &mut State) -> Vec<Effect> {
    if state.zoomed {
        state.zoomed = false;
    } else if state.pane == Pane::Output && 0 < state.running {
        return vec![Effect::Cancel];
    } else if state.focus == Focus::Pane {
        state.focus = Focus::Table;
    } else {
        state.filter.clear();
    }
    Vec::new()
}

/// Moves what the pane shows; up is positive.
fn scroll(state: &mut State, up: isize) {
    let height = layout(state).pane_inside().height.into();
    state.text_mut().scroll(up, height);
}

/// Moves the mark, or what the pane shows.
fn step(state: &mut State, by: isize) {
    if state.focus == Focus::Pane {
        return scroll(state, by.saturating_neg());
    }
    let rows = state.rows();
    let selection = state.selection_mut();
    let last = rows.len().saturating_sub(1);
    let index = selection.index.saturating_add_signed(by).min(last);
    selection.key = rows.get(index).map(|row| row.key.clone());
}

/// What is done to the thing under the mark.
fn work(state: &mut State, action: Action) -> Vec<Effect> {
    let Some(key) = state.selection().key.clone() else {
        state.say("nothing is selected", true);
        return Vec::new();
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match (action, state.subject) {
        (Action::Start, Subject::Vms) => {
            run(state, words(&["vms", "start", &key, "--wait=false"]), false)
        }
        (Action::Stop, Subject::Vms) => {
            run(state, words(&["vms", "stop", &key, "--wait=false"]), false)
        }
        (Action::Restart, Subject::Vms) => {
            run(state, words(&["vms", "restart", &key, "--wait=false"]), false)
        }
        (Action::Console, Subject::Vms) => run(state, words(&["vms", "console", &key]), false),
        (Action::Shell, Subject::Vms) => {
            run(state, words(&["vms", "exec", "-it", &key, "--", "/bin/sh"]), false)
        }
        (Action::Exec, Subject::Vms) => {
            state.mode = Mode::Command(Line::of(&format!("vms exec {key} -- ")));
            Vec::new()
        }
        (Action::Toggle, Subject::Plugins) => {
            let enabled = state.plugins.iter().any(|one| one.name == key && one.enabled);
            let verb = if enabled { "disable" } else { "enable" };
            run(state, words(&["plugins", verb, &key]), false)
        }
        (Action::Delete, subject) => {
            let (text, command) = match subject {
                Subject::Vms => ("VM", ["vms", "delete"]),
                Subject::Plugins => ("plugin", ["plugins", "remove"]),
                Subject::Images => ("image", ["images", "rm"]),
                Subject::Volumes => ("volume, with everything in it,", ["volumes", "rm"]),
            };
            let text = format!("Remove the {text} {key}?");
            let command = words(&[command[0], command[1], &key]);
            state.mode = Mode::Confirm(Question { text, command });
            Vec::new()
        }
        _ => {
            state.say(format!("that is not for {}", state.subject.title()), true);
            Vec::new()
        }
    }
}

fn mouse_used(state: &mut State, mouse: MouseEvent) -> Vec<Effect> {
    let target = hit(state, mouse.column, mouse.row);
    let wheel = match mouse.kind {
        MouseEventKind::ScrollUp => Some(-WHEEL_LINES),
        MouseEventKind::ScrollDown => Some(WHEEL_LINES),
        _ => None,
    };
    if let Some(by) = wheel {
        match target {
            Some(Hit::Pane | Hit::Title(_)) => scroll(state, -by),
            _ => {
                let focus = std::mem::replace(&mut state.focus, Focus::Table);
                step(state, by);
                state.focus = focus;
            }
        }
    }
    if mouse.kind != MouseEventKind::Down(MouseButton::Left) || state.mode != Mode::Browse {
        return Vec::new();
    }
    match target {
        Some(Hit::Row(row)) => {
            state.focus = Focus::Table;
            let rows = state.rows();
            let selection = state.selection_mut();
            if let Some(row) = rows.get(selection.offset + row) {
                selection.key = Some(row.key.clone());
            }
        }
        Some(Hit::Pane) => state.focus = Focus::Pane,
        Some(Hit::Title(pane)) => (state.pane, state.focus) = (pane, Focus::Pane),
        Some(Hit::Subject(subject)) => return act(state, Action::List(subject)),
        None => {}
    }
    Vec::new()
}
