//! stdout is data: tables for people, JSON, YAML, names and templates for programs. Everything that a
//! command says goes through its [`Printer`], so that the terminal interface can show it in a pane.

mod rows;
mod table;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;

use crate::cli::{CtlArgs, Output};
use crate::ctl::client::Failure;
use crate::wire::{EventView, VmView};

pub use rows::Listed;

/// Bytes that a capture holds until they are taken; older ones are dropped.
const CAPTURE_LEN_MAX: usize = 1024 * 1024;

/// What a command has written, for somebody in this process.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Mutex<Vec<u8>>,
    grown: Notify,
}

impl Capture {
    fn push(&self, bytes: &[u8]) {
        let mut all = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        let too_many = all.len().saturating_sub(CAPTURE_LEN_MAX);
        all.drain(..too_many);
        self.grown.notify_one();
    }

    /// What has come since the last time, once there is something.
    pub async fn take(&self) -> Vec<u8> {
        loop {
            let bytes = self.rest();
            if !bytes.is_empty() {
                return bytes;
            }
            self.grown.notified().await;
        }
    }

    /// What has come since the last time, if anything.
    pub fn rest(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a command shows what it has.
#[derive(Clone, Debug)]
pub struct Printer {
    form: Output,
    template: Option<String>,
    colors: bool,
    capture: Option<Arc<Capture>>,
}

impl Printer {
    /// To stdout, as the command line says.
    pub fn new(args: &CtlArgs) -> Printer {
        let form = match (args.quiet, &args.template) {
            (true, _) => Output::Name,
            (false, Some(_)) => Output::Template,
            (false, None) => args.output,
        };
        let colors = std::io::stdout().is_terminal() && colors_wanted();
        Printer { form, template: args.template.clone(), colors, capture: None }
    }

    /// To stdout, for people.
    pub fn to_stdout() -> Printer {
        Printer { form: Output::Table, template: None, colors: false, capture: None }
    }

    /// The same, into `capture` in place of stdout and stderr.
    pub fn captured(self, capture: Arc<Capture>) -> Printer {
        Printer { capture: Some(capture), colors: false, ..self }
    }

    /// Whether it is for people.
    pub fn is_table(&self) -> bool {
        matches!(self.form, Output::Table | Output::Wide)
    }

    /// Whether what is shown can be replaced by a newer state of it.
    pub fn can_redraw(&self) -> bool {
        self.capture.is_none() && self.is_table() && std::io::stdout().is_terminal()
    }

    /// Makes room for a newer state of what was shown, on a terminal.
    ///
    /// # Errors
    /// See [`Printer::write`].
    pub fn redraw(&self) -> Result<(), Failure> {
        if self.can_redraw() { self.write(b"\x1b[H\x1b[2J") } else { Ok(()) }
    }

    /// Writes data as it is.
    ///
    /// # Errors
    /// Nobody reads: without a word, as is usual at the head of a pipe.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(capture) = &self.capture {
            capture.push(bytes);
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| Failure::of_writing(&e))
    }

    /// Writes a line of data.
    ///
    /// # Errors
    /// See [`Printer::write`].
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Tells something to whoever is at the terminal.
    pub fn talk(&self, bytes: &[u8]) {
        match &self.capture {
            Some(capture) => capture.push(bytes),
            // A stderr that is gone takes no more words.
            None => drop(std::io::stderr().write_all(bytes)),
        }
    }

    /// Prints one thing that has no columns; for people as YAML.
    ///
    /// # Errors
    /// It cannot be encoded, or see [`Printer::write`].
    pub fn value(&self, value: &impl Serialize) -> Result<(), Failure> {
        let value = serde_json::to_value(value).map_err(|e| Failure::local(e.to_string()))?;
        match self.form {
            Output::Json => self.line(&format!("{value:#}")),
            Output::Name => self.line(&name_of(&value)),
            Output::Template => self.rendered(&value),
            Output::Table | Output::Wide | Output::Yaml => {
                let text = serde_yaml_ng::to_string(&value);
                self.write(text.map_err(|e| Failure::local(e.to_string()))?.as_bytes())
            }
        }
    }

    /// Prints a list.
    ///
    /// # Errors
    /// See [`Printer::value`].
    pub fn list<T: Listed>(&self, items: &[T]) -> Result<(), Failure> {
        match self.form {
            Output::Table | Output::Wide => self.rows(items),
            Output::Name => items.iter().try_for_each(|item| self.line(&item.name())),
            Output::Template => items.iter().try_for_each(|item| self.value(item)),
            Output::Json | Output::Yaml => self.value(&items),
        }
    }

    /// Prints one thing of those that lists have.
    ///
    /// # Errors
    /// See [`Printer::value`].
    pub fn one<T: Listed>(&self, item: &T) -> Result<(), Failure> {
        match self.form {
            Output::Table | Output::Wide => self.rows(std::slice::from_ref(item)),
            Output::Name => self.line(&item.name()),
            Output::Template | Output::Json | Output::Yaml => self.value(item),
        }
    }

    fn rows<T: Listed>(&self, items: &[T]) -> Result<(), Failure> {
        let is_wide = self.form == Output::Wide;
        let header: Vec<&str> =
            T::HEADER.iter().chain(if is_wide { T::WIDE } else { &[] }).copied().collect();
        let rows = items.iter().map(|item| {
            let more = if is_wide { item.wide() } else { Vec::new() };
            item.cells().into_iter().chain(more).collect()
        });
        self.write(table::text(&header, rows, self.columns(), self.colors).as_bytes())
    }

    /// Columns of the terminal that is written to.
    fn columns(&self) -> Option<u16> {
        let is_terminal = self.capture.is_none() && std::io::stdout().is_terminal();
        is_terminal.then(crate::ctl::terminal::size).flatten().map(|(columns, _)| columns)
    }

    fn rendered(&self, value: &Value) -> Result<(), Failure> {
        let wrong = |error: minijinja::Error| Failure {
            exit_code: 2,
            hint: Some("for example --template '{{ name }} {{ ip_address }}'".to_owned()),
            ..Failure::local(format!("--template: {error}"))
        };
        let Some(template) = &self.template else {
            let text = "-o template needs --template TEXT";
            return Err(Failure { exit_code: 2, ..Failure::local(text) });
        };
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Chainable);
        self.line(&environment.render_str(template, value).map_err(wrong)?)
    }

    /// Shown on a terminal only.
    pub fn spinner(&self, message: &'static str) -> ProgressBar {
        self.progress(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}", |bar| {
            bar.set_message(message);
            bar.enable_steady_tick(Duration::from_millis(100));
        })
    }

    /// A bar of bytes, shown on a terminal only.
    pub fn bar(&self) -> ProgressBar {
        self.progress(ProgressBar::new(0), "{msg:12} {bar:30} {bytes}/{total_bytes}", |_| {})
    }

    fn progress(
        &self,
        bar: ProgressBar,
        template: &str,
        begin: impl FnOnce(&ProgressBar),
    ) -> ProgressBar {
        if self.capture.is_some() || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        begin(&bar);
        bar
    }

    /// Prints an event as a line.
    ///
    /// # Errors
    /// See [`Printer::write`].
    pub fn event(&self, data: &str) -> Result<(), Failure> {
        match serde_json::from_str::<EventView>(data) {
            Ok(event) if self.is_table() => self.line(&event_line(&event)),
            Ok(event) if self.form == Output::Name => self.line(&event.name),
            Ok(event) if self.form == Output::Template => self.value(&event),
            _ => self.line(data),
        }
    }

    /// Prints the steps of the latest start.
    ///
    /// # Errors
    /// See [`Printer::write`].
    pub fn timeline(&self, vm: &VmView) -> Result<(), Failure> {
        if !self.is_table() {
            return self.value(&vm.boot);
        }
        let mut last = 0;
        for step in &vm.boot.steps {
            let (at, took) = (ms(step.at_us), ms(step.at_us.saturating_sub(last)));
            self.line(&format!("{:<16} {at:>10} ms  (+{took} ms)", step.step))?;
            last = step.at_us;
        }
        self.line(&format!("{:<16} {:>10}", "KVM_RUN returns", vm.boot.exits))
    }
}

/// Whether colors may be used on a terminal: <https://no-color.org>, and TERM.
pub fn colors_wanted() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// An event for people.
pub fn event_line(event: &EventView) -> String {
    format!("{} {:<12} {:<20} {}", event.timestamp, event.kind, event.name, event.message)
}

fn name_of(value: &Value) -> String {
    let name = ["name", "reference", "digest", "id", "path"].iter().find_map(|key| value.get(key));
    name.map_or_else(String::new, |name| name.as_str().map_or(name.to_string(), str::to_owned))
}

/// Microseconds as milliseconds with a decimal.
pub fn ms(us: u64) -> String {
    format!("{}.{:01}", us / 1000, us % 1000 / 100)
}
