//! The terminal interface: `volantd ctl` without a verb. Events change the [`state`] (`update`), the
//! state is drawn (`draw`), and what the events ask for is done by tasks (`work`), which send events.
//! All of it runs on one thread; nothing waits for the network but tasks.

mod detail;
mod draw;
mod follow;
mod keys;
mod layout;
mod line;
mod state;
#[cfg(test)]
mod tests;
mod update;
mod work;

use std::io::{IsTerminal, stdout};
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{
    DisableMouseCapture, EnableMouseCapture, Event as Input, EventStream, KeyEventKind,
};
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use futures_util::StreamExt;
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::ctl::client::{Client, Failure};
use crate::ctl::output::colors_wanted;
use state::{State, Subject};
use update::{Effect, Event, update};
use work::{Work, needs_terminal};

/// Events between tasks and the interface.
const QUEUE_LEN: usize = 256;
/// Of the clock of what is shown for a while.
const TICK: Duration = Duration::from_secs(1);

/// Runs until it is left.
///
/// # Errors
/// There is no terminal, or it refuses.
pub async fn run(client: Client) -> Result<u8, Failure> {
    if !std::io::stdin().is_terminal() || !stdout().is_terminal() {
        let hint = "name a command; `volantd ctl --help` lists them".to_owned();
        let failure = Failure::local("the terminal interface needs a terminal");
        return Err(Failure { exit_code: 2, hint: Some(hint), ..failure });
    }
    // Commands stay on this thread.
    tokio::task::LocalSet::new().run_until(attend(client)).await
}

async fn attend(client: Client) -> Result<u8, Failure> {
    let mut screen = Screen::open()?;
    let size = screen.terminal.size().map_err(|e| Failure::local(e.to_string()))?;
    let mut state = State::new(client.place(), colors_wanted(), (size.width, size.height));
    let (sender, mut events) = mpsc::channel(QUEUE_LEN);
    let mut work = Work::begin(Arc::new(client), sender);
    let local = |error: std::io::Error| Failure::local(error.to_string());
    let mut terminated = signal(SignalKind::terminate()).map_err(local)?;
    let mut ticks = tokio::time::interval(TICK);
    let mut keys = EventStream::new();
    loop {
        screen.draw(&state)?;
        let event = tokio::select! {
            input = keys.next() => match input {
                Some(Ok(input)) => typed(&input),
                _ => return Ok(0),
            },
            event = events.recv() => event,
            _ = ticks.tick() => Some(Event::Tick),
            _ = terminated.recv() => return Ok(0),
        };
        let mut effects: Vec<Effect> =
            event.map(|event| update(&mut state, event)).unwrap_or_default();
        // What has come meanwhile is drawn at once.
        while let Ok(event) = events.try_recv() {
            effects.extend(update(&mut state, event));
        }
        work.measure(measured(&state));
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(0),
                Effect::Suspend => {
                    put_down(keys);
                    screen.leave();
                    let stopped =
                        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
                    stopped.map_err(|error| local(error.into()))?;
                    screen.enter()?;
                    keys = EventStream::new();
                }
                Effect::Run { words, .. } if needs_terminal(&words) => {
                    put_down(keys);
                    screen.leave();
                    let done = work.hand_over(&words).await;
                    screen.enter()?;
                    keys = EventStream::new();
                    update(&mut state, done).into_iter().for_each(|effect| work.start(effect));
                }
                other => work.start(other),
            }
        }
    }
}

/// Leaves the keyboard to others. What wakes the stream's thread is taken here: a key that comes together
/// with it would be held back until the next one, once the keyboard is ours again.
fn put_down(keys: EventStream) {
    drop(keys);
    // That nothing has been typed is no failure, and a terminal that is gone shows soon enough.
    let _ = crossterm::event::poll(Duration::ZERO);
}

fn typed(input: &Input) -> Option<Event> {
    match *input {
        Input::Key(key) if key.kind != KeyEventKind::Release => Some(Event::Key(key)),
        Input::Mouse(mouse) => Some(Event::Mouse(mouse)),
        Input::Resize(columns, rows) => Some(Event::Resized(columns, rows)),
        _ => None,
    }
}

/// The guests whose load is shown: those in sight.
fn measured(state: &State) -> Vec<String> {
    let runs =
        |name: &String| state.vms.iter().any(|vm| vm.name == *name && vm.status == "running");
    if state.subject != Subject::Vms {
        return Vec::new();
    }
    let height = usize::from(layout::layout(state).rows_height()).max(1);
    let shown = state.rows().into_iter().skip(state.selection().offset).take(height);
    shown.map(|row| row.key).filter(runs).collect()
}

/// The terminal, whole, until it is left.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn open() -> Result<Screen, Failure> {
        // Also sees to it that a panic leaves the terminal as it was.
        let terminal = ratatui::try_init().map_err(|e| Failure::local(format!("terminal: {e}")))?;
        let mut screen = Screen { terminal };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&mut self) -> Result<(), Failure> {
        let entered = enable_raw_mode().and_then(|()| {
            execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), EnableMouseCapture)
        });
        // A new one knows of nothing that is on the screen, and asks the terminal for nothing.
        let terminal = entered.and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        self.terminal = terminal.map_err(|error| Failure::local(format!("terminal: {error}")))?;
        Ok(())
    }

    fn leave(&mut self) {
        // Nothing more can be done for a terminal that refuses.
        let _ = execute!(stdout(), DisableMouseCapture);
        ratatui::restore();
        let _ = self.terminal.show_cursor();
    }

    fn draw(&mut self, state: &State) -> Result<(), Failure> {
        let drawn = self.terminal.draw(|frame| draw::draw(state, frame));
        drawn.map(drop).map_err(|error| Failure::local(format!("terminal: {error}")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}
