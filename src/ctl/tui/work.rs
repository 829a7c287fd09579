//! What the interface does outside of itself: it follows the daemon, and runs commands. Each is a task
//! that sends events; none outlives [`Work`].

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures_util::StreamExt;
use futures_util::stream;
use hyper::Method;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::cli::{Cli, Command, CtlArgs, CtlCommand, VmsCommand};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::{Capture, Printer};
use crate::ctl::tui::follow;
use crate::ctl::tui::state::Subject;
use crate::ctl::tui::update::{Effect, Event};
use crate::ctl::vms::{encoded, path};
use crate::wire::GuestMetricsView;

/// How often guests are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// Guests measured at once.
const MEASURE_AT_ONCE: usize = 8;

const NO_BODY: Option<&()> = None;

/// The tasks.
#[derive(Debug)]
pub struct Work {
    client: Arc<Client>,
    events: mpsc::Sender<Event>,
    /// Guests to be measured.
    measured: watch::Sender<Vec<String>>,
    refresh: watch::Sender<()>,
    tasks: JoinSet<()>,
    log: Option<AbortHandle>,
    commands: Vec<AbortHandle>,
}

impl Work {
    /// Follows the fleet.
    pub fn begin(client: Arc<Client>, events: mpsc::Sender<Event>) -> Work {
        let mut tasks = JoinSet::new();
        let refresh = watch::Sender::new(());
        let measured = watch::Sender::new(Vec::new());
        tasks.spawn(follow::fleet(Arc::clone(&client), events.clone(), refresh.subscribe()));
        tasks.spawn(measure(Arc::clone(&client), events.clone(), measured.subscribe()));
        Work { client, events, measured, refresh, tasks, log: None, commands: Vec::new() }
    }

    /// Says which guests are to be measured.
    pub fn measure(&self, names: Vec<String>) {
        self.measured.send_if_modified(|now| {
            let is_new = *now != names;
            *now = names;
            is_new
        });
    }

    /// Does what does not need the terminal.
    pub fn start(&mut self, effect: Effect) {
        let (client, events) = (Arc::clone(&self.client), self.events.clone());
        while self.tasks.try_join_next().is_some() {}
        match effect {
            // Those are the loop's.
            Effect::Quit | Effect::Suspend => {}
            Effect::Refresh => self.refresh.send_modify(|()| {}),
            Effect::Follow(name) => {
                self.log.take().inspect(AbortHandle::abort);
                self.log = name.map(|name| self.tasks.spawn(follow::log(client, events, name)));
            }
            Effect::FollowAgui => drop(self.tasks.spawn(follow::agui(client, events))),
            Effect::Describe(subject, name) => {
                drop(self.tasks.spawn(describe(client, events, subject, name)));
            }
            Effect::Run { words, shown } => {
                self.commands.retain(|command| !command.is_finished());
                let task = run(client, events, words, shown);
                self.commands.push(self.tasks.spawn_local(task));
            }
            Effect::Cancel => {
                let running = self.commands.drain(..).filter(|command| !command.is_finished());
                for command in running {
                    command.abort();
                    let ended = Event::Done {
                        command: "the command".to_owned(),
                        shown: true,
                        outcome: Err("ended".to_owned()),
                    };
                    // Full only if nobody reads, and then nobody misses it.
                    let _ = self.events.try_send(ended);
                }
            }
        }
    }

    /// Runs a command that has the terminal to itself.
    pub async fn hand_over(&self, words: &[String]) -> Event {
        let command = words.join(" ");
        let outcome = match parse(words) {
            Ok((command, out)) => crate::ctl::dispatch(&self.client, command, &out).await,
            Err(failure) => Err(failure),
        };
        Event::Done { command, shown: false, outcome: outcome.map_err(|failure| told(&failure)) }
    }
}

/// Whether a command needs the terminal to itself.
pub fn needs_terminal(words: &[String]) -> bool {
    matches!(parse(words), Ok((CtlCommand::Vms(VmsCommand::Console(_) | VmsCommand::Attach(_)), _)))
        || matches!(
            parse(words),
            Ok((CtlCommand::Vms(VmsCommand::Exec(exec)), _)) if exec.tty || exec.interactive
        )
}

fn told(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{} ({hint})", failure.message),
        None => failure.message.clone(),
    }
}

fn parse(words: &[String]) -> Result<(CtlCommand, Printer), Failure> {
    let all = ["volantd", "ctl"].into_iter().chain(words.iter().map(String::as_str));
    let parsed = Cli::try_parse_from(all);
    let cli = parsed.map_err(|error| Failure::local(error.to_string().trim().to_owned()))?;
    let Some(Command::Ctl(args)) = cli.command else {
        return Err(Failure::local("that is no command of ctl"));
    };
    let out = Printer::new(&args);
    let CtlArgs { command: Some(command), .. } = args else {
        return Err(Failure::local("that is no command of ctl"));
    };
    Ok((command, out))
}

async fn run(client: Arc<Client>, events: mpsc::Sender<Event>, words: Vec<String>, shown: bool) {
    let capture = Arc::new(Capture::default());
    let outcome = match parse(&words) {
        Ok((command, out)) => {
            let out = out.captured(Arc::clone(&capture));
            let work = crate::ctl::dispatch(&client, command, &out);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    outcome = &mut work => break outcome,
                    bytes = capture.take() => tell(&events, shown, &bytes).await,
                }
            }
        }
        Err(failure) => Err(failure),
    };
    tell(&events, shown, &capture.rest()).await;
    let outcome = match outcome {
        Ok(code) => Ok(code),
        Err(failure) if shown => {
            let text = told(&failure);
            let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
            tell(&events, shown, rest.as_bytes()).await;
            Err(first.to_owned())
        }
        Err(failure) => Err(told(&failure)),
    };
    let done = Event::Done { command: words.join(" "), shown, outcome };
    let _ = events.send(done).await;
}

async fn tell(events: &mpsc::Sender<Event>, shown: bool, bytes: &[u8]) {
    if shown && !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes).into_owned();
        // Nobody listens once the interface ends.
        let _ = events.send(Event::Output(text)).await;
    }
}

async fn describe(
    client: Arc<Client>,
    events: mpsc::Sender<Event>,
    subject: Subject,
    name: String,
) {
    let target = match subject {
        Subject::Plugins => format!("/api/v1/plugins/{}", encoded(&name)),
        _ => format!("/api/v1/images/{}", encoded(&name)),
    };
    let answer: Result<serde_json::Value, Failure> =
        client.json(Method::GET, &target, NO_BODY).await;
    let text = match answer {
        Ok(document) => serde_yaml_ng::to_string(&document).unwrap_or_else(|e| e.to_string()),
        Err(failure) => told(&failure),
    };
    let _ = events.send(Event::Described(subject, name, text)).await;
}

async fn measure(
    client: Arc<Client>,
    events: mpsc::Sender<Event>,
    mut names: watch::Receiver<Vec<String>>,
) {
    let mut ticks = tokio::time::interval(MEASURE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = names.changed() => if changed.is_err() { return },
        }
        let wanted = names.borrow_and_update().clone();
        let measure = wanted.into_iter().map(|name| {
            let client = Arc::clone(&client);
            async move {
                let target = path(&name, "/guest/metrics");
                let view: Result<GuestMetricsView, Failure> =
                    client.json(Method::GET, &target, NO_BODY).await;
                view.ok().map(|view| Event::Measured(name, view))
            }
        });
        // A guest that does not tell is shown without a load.
        let mut measured = stream::iter(measure).buffer_unordered(MEASURE_AT_ONCE);
        while let Some(event) = measured.next().await {
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return;
            }
        }
    }
}
