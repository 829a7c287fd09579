//! What the terminal interface knows and shows: plain data, changed by `update` alone.

use std::collections::{BTreeMap, VecDeque};

use indicatif::HumanBytes;

use crate::ctl::top::busy_percent;
use crate::ctl::tui::line::Line;
use crate::wire::{GuestMetricsView, ImageView, PluginView, VmView, VolumeView};

/// Lines that a pane remembers.
pub const LINES_MAX: usize = 2000;
/// Measurements of a VM that are remembered.
pub const HISTORY_LEN: usize = 40;

/// What the table lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Vms,
    Plugins,
    Images,
    Volumes,
}

impl Subject {
    /// In the order of their keys, 1 to 4.
    pub const ALL: [Subject; 4] =
        [Subject::Vms, Subject::Plugins, Subject::Images, Subject::Volumes];

    /// As it is shown.
    pub fn title(self) -> &'static str {
        match self {
            Subject::Vms => "VMs",
            Subject::Plugins => "Plugins",
            Subject::Images => "Images",
            Subject::Volumes => "Volumes",
        }
    }
}

/// What is shown beside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Detail,
    Logs,
    Events,
    Agui,
    Output,
}

impl Pane {
    /// With their keys.
    pub const ALL: [(Pane, char, &'static str); 5] = [
        (Pane::Detail, 'd', "Detail"),
        (Pane::Logs, 'l', "Logs"),
        (Pane::Events, 'e', "Events"),
        (Pane::Agui, 'a', "AG-UI"),
        (Pane::Output, 'o', "Output"),
    ];
}

/// Which half gets the keys that move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    Table,
    Pane,
}

/// The connection to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Connecting,
    Up,
    /// And why.
    Lost(String),
}

/// What the keys do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Browse,
    Help,
    Command(Line),
    Filter(Line),
    Confirm(Question),
}

/// Something that is done only after a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    /// Words after `volantd ctl`.
    pub command: Vec<String>,
}

/// Lines that come in at the end, the oldest being forgotten.
#[derive(Clone, Debug, Default)]
pub struct Text {
    lines: VecDeque<String>,
    /// Lines below the window; 0 follows what comes. Where the text is filled as a whole: lines above.
    away: usize,
    from_top: bool,
}

impl Text {
    /// Adds a line, made harmless for the terminal.
    pub fn push(&mut self, line: &str) {
        self.lines.push_back(harmless(line));
        if LINES_MAX < self.lines.len() {
            self.lines.pop_front();
        }
        if 0 < self.away {
            self.away = (self.away + 1).min(self.lines.len() - 1);
        }
    }

    /// Takes these in place of what was there; the window is at the begin until it is moved.
    pub fn fill(&mut self, lines: impl Iterator<Item = String>) {
        self.lines = lines.map(|line| harmless(&line)).collect();
        self.from_top = true;
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Text::default();
    }

    /// Moves a window of this height by so many lines; up is positive.
    pub fn scroll(&mut self, up: isize, height: usize) {
        let last = self.lines.len().saturating_sub(height.max(1));
        let by = if self.from_top { up.saturating_neg() } else { up };
        self.away = self.away.saturating_add_signed(by).min(last);
    }

    /// What a window of this size shows; longer lines go on below.
    pub fn window(&self, width: usize, height: usize) -> Vec<String> {
        let away = self.away.min(self.lines.len().saturating_sub(height));
        if self.from_top {
            let lines = self.lines.iter().skip(away);
            return lines.flat_map(|line| folded(line, width)).take(height).collect();
        }
        let lines = self.lines.iter().rev().skip(away);
        let rows = lines.flat_map(|line| folded(line, width).into_iter().rev()).take(height);
        let mut rows: Vec<String> = rows.collect();
        rows.reverse();
        rows
    }

    /// Whether what comes is below the window.
    pub fn is_behind(&self) -> bool {
        !self.from_top && 0 < self.away
    }
}

fn folded(line: &str, width: usize) -> Vec<String> {
    let all: Vec<char> = line.chars().collect();
    match all.is_empty() {
        true => vec![String::new()],
        false => all.chunks(width.max(1)).map(|part| part.iter().collect()).collect(),
    }
}

/// Without what would move the cursor or change colors.
pub fn harmless(line: &str) -> String {
    let plain = anstream::adapter::strip_str(line).to_string().replace('\t', "    ");
    plain.chars().filter(|c| !c.is_control()).collect()
}

/// What a guest has told of its load.
#[derive(Clone, Debug, Default)]
pub struct Load {
    last: Option<GuestMetricsView>,
    /// Of all its processors together, in percent; the newest last.
    pub cpu_percent: VecDeque<u64>,
}

impl Load {
    /// Takes a measurement.
    pub fn take(&mut self, now: GuestMetricsView) {
        if let Some(last) = &self.last {
            match busy_percent(last, &now) {
                Some(percent) => self.cpu_percent.push_back(percent),
                None => self.cpu_percent.clear(),
            }
        }
        while HISTORY_LEN < self.cpu_percent.len() {
            self.cpu_percent.pop_front();
        }
        self.last = Some(now);
    }

    /// The latest measurement.
    pub fn latest(&self) -> Option<&GuestMetricsView> {
        self.last.as_ref()
    }

    fn cpu(&self) -> String {
        self.cpu_percent.back().map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"))
    }

    fn memory(&self, of_mib: u64) -> String {
        self.last.as_ref().map_or_else(
            || format!("-/{of_mib}M"),
            |now| {
                let used = now.memory_total.saturating_sub(now.memory_available);
                format!("{}/{of_mib}M", used >> 20)
            },
        )
    }
}

/// Where the table's mark is: on a thing, wherever it moves.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub key: Option<String>,
    pub index: usize,
    /// First row that is shown.
    pub offset: usize,
}

impl Selection {
    /// Goes with the thing, or stays in place if that is gone; `height` rows are shown.
    pub fn settle(&mut self, rows: &[Row], height: usize) {
        let found = rows.iter().position(|row| Some(&row.key) == self.key.as_ref());
        self.index = found.unwrap_or(self.index).min(rows.len().saturating_sub(1));
        self.key = rows.get(self.index).map(|row| row.key.clone());
        let height = height.max(1);
        self.offset = self.offset.clamp((self.index + 1).saturating_sub(height), self.index);
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: String,
    pub cells: Vec<String>,
}

/// All of it.
#[derive(Debug)]
pub struct State {
    /// Which daemon.
    pub place: String,
    pub link: Link,
    pub version: String,
    pub colors: bool,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    pub subject: Subject,
    pub pane: Pane,
    pub focus: Focus,
    /// Whether what has the focus has the whole terminal.
    pub zoomed: bool,
    pub mode: Mode,
    pub filter: String,
    pub vms: Vec<VmView>,
    pub loads: BTreeMap<String, Load>,
    pub plugins: Vec<PluginView>,
    pub images: Vec<ImageView>,
    pub volumes: Vec<VolumeView>,
    pub selections: [Selection; 4],
    pub detail: Text,
    /// What `detail` is of, when it is not made of what is listed anyway.
    pub described: Option<(Subject, String)>,
    pub logs: Text,
    /// Whose logs these are.
    pub logs_of: Option<String>,
    pub events: Text,
    pub agui: Text,
    /// Whether the AG-UI stream has been asked for.
    pub agui_follows: bool,
    pub output: Text,
    /// Commands under way.
    pub running: usize,
    /// What was said last, and whether it is bad news.
    pub status: Option<(String, bool)>,
    /// Ticks for which it is still shown.
    pub status_ticks: u8,
    /// Command lines, the latest last.
    pub history: Vec<String>,
}

impl State {
    /// At the beginning.
    pub fn new(place: String, colors: bool, size: (u16, u16)) -> State {
        State {
            place,
            link: Link::Connecting,
            version: String::new(),
            colors,
            size,
            subject: Subject::Vms,
            pane: Pane::Detail,
            focus: Focus::Table,
            zoomed: false,
            mode: Mode::Browse,
            filter: String::new(),
            vms: Vec::new(),
            loads: BTreeMap::new(),
            plugins: Vec::new(),
            images: Vec::new(),
            volumes: Vec::new(),
            selections: Default::default(),
            detail: Text::default(),
            described: None,
            logs: Text::default(),
            logs_of: None,
            events: Text::default(),
            agui: Text::default(),
            agui_follows: false,
            output: Text::default(),
            running: 0,
            status: None,
            status_ticks: 0,
            history: Vec::new(),
        }
    }

    /// The mark in the table that is shown.
    pub fn selection(&self) -> &Selection {
        &self.selections[self.subject as usize]
    }

    /// The same, to be changed.
    pub fn selection_mut(&mut self) -> &mut Selection {
        &mut self.selections[self.subject as usize]
    }

    /// The VM that is marked.
    pub fn vm(&self) -> Option<&VmView> {
        let key = self.selections[Subject::Vms as usize].key.as_deref()?;
        self.vms.iter().find(|vm| vm.name == key)
    }

    /// Headings of the table.
    pub fn header(&self) -> &'static [&'static str] {
        match self.subject {
            Subject::Vms => &["NAME", "STATUS", "CPU", "MEM", "IP", "RUNS"],
            Subject::Plugins => &["NAME", "VERSION", "ENABLED", "VMS", "ACTIONS"],
            Subject::Images => &["REFERENCE", "ID", "ROOT", "LAYERS"],
            Subject::Volumes => &["NAME", "MIB", "USED", "ATTACHED"],
        }
    }

    /// Rows of the table, as far as the filter leaves them.
    pub fn rows(&self) -> Vec<Row> {
        let rows: Vec<Row> = match self.subject {
            Subject::Vms => self.vms.iter().map(|vm| self.vm_row(vm)).collect(),
            Subject::Plugins => self.plugins.iter().map(plugin_row).collect(),
            Subject::Images => self.images.iter().map(image_row).collect(),
            Subject::Volumes => self.volumes.iter().map(volume_row).collect(),
        };
        let wanted = self.filter.to_lowercase();
        let matches = |cell: &String| cell.to_lowercase().contains(&wanted);
        rows.into_iter().filter(|row| row.cells.iter().any(matches)).collect()
    }

    fn vm_row(&self, vm: &VmView) -> Row {
        let load = self.loads.get(&vm.name).filter(|_| vm.status == "running");
        let status = match (&vm.workload, vm.status.as_str()) {
            (Some(workload), "running") => &workload.condition,
            _ => &vm.status,
        };
        let none = Load::default();
        let load = load.unwrap_or(&none);
        let runs = vm.image.as_ref().map(|image| &image.reference).or(vm.plugin.as_ref());
        let cells = vec![
            vm.name.clone(),
            status.clone(),
            load.cpu(),
            load.memory(vm.memory_mb),
            vm.ip_address.clone(),
            runs.cloned().unwrap_or_default(),
        ];
        Row { key: vm.name.clone(), cells }
    }

    /// Says something for a while.
    pub fn say(&mut self, text: impl Into<String>, is_bad: bool) {
        self.status = Some((harmless(&text.into()), is_bad));
        self.status_ticks = 6;
    }

    /// The lines of the pane that is shown.
    pub fn text_mut(&mut self) -> &mut Text {
        match self.pane {
            Pane::Detail => &mut self.detail,
            Pane::Logs => &mut self.logs,
            Pane::Events => &mut self.events,
            Pane::Agui => &mut self.agui,
            Pane::Output => &mut self.output,
        }
    }
}

fn plugin_row(plugin: &PluginView) -> Row {
    let enabled = if plugin.enabled { "yes" } else { "no" };
    let cells = vec![
        plugin.name.clone(),
        plugin.version.clone(),
        enabled.to_owned(),
        plugin.vms.to_string(),
        plugin.actions.join(" "),
    ];
    Row { key: plugin.name.clone(), cells }
}

fn image_row(image: &ImageView) -> Row {
    let cells = vec![
        image.reference.clone(),
        image.id.trim_start_matches("sha256:").chars().take(12).collect(),
        HumanBytes(image.root_bytes).to_string(),
        HumanBytes(image.layer_bytes).to_string(),
    ];
    Row { key: image.reference.clone(), cells }
}

fn volume_row(volume: &VolumeView) -> Row {
    let attached: Vec<_> = volume.attached.iter().map(|user| user.vm.as_str()).collect();
    let cells = vec![
        volume.name.clone(),
        volume.size_mb.to_string(),
        HumanBytes(volume.used_bytes).to_string(),
        attached.join(" "),
    ];
    Row { key: volume.name.clone(), cells }
}
