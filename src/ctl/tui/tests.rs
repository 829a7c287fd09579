//! The interface without a terminal: events in, screens out.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::draw::draw;
use super::state::{Focus, Link, Mode, Pane, State, Subject};
use super::update::{Effect, Event, update};
use super::work::needs_terminal;
use crate::wire::{GuestMetricsView, VmView};

fn vm(name: &str, status: &str) -> Value {
    json!({
        "id": 1, "name": name, "status": status, "ready": status == "running",
        "runtime": "default", "ip_address": "192.168.127.2", "mac_address": "02:76:c0:a8:7f:02",
        "vsock_cid": 3, "cpu_cores": 2, "memory_mb": 512, "kernel_cmdline": "", "console": true,
        "boot_from": "initramfs", "created_at": "2026-11-25T09:59:37Z",
        "updated_at": "2026-11-25T09:59:41Z",
        "boot": { "exits": 231, "steps": [{ "step": "accepted", "at_us": 12_300 }] }
    })
}

fn vms(list: &[(&str, &str)]) -> Event {
    let vms = list.iter().map(|(name, status)| serde_json::from_value(vm(name, status)).unwrap());
    Event::Vms(vms.collect::<Vec<VmView>>())
}

fn metrics(busy: u64, idle: u64) -> GuestMetricsView {
    let view = json!({
        "cpus": 2, "cpu_busy_us": busy, "cpu_idle_us": idle, "load_1m": 0.5,
        "memory_total": 500 << 20, "memory_available": 420 << 20, "memory_cached": 30 << 20,
        "disk_total": 1 << 30, "disk_used": 100 << 20, "processes": 17,
        "net_received": 4096, "net_sent": 2048, "time": "2026-11-25T10:00:00Z"
    });
    serde_json::from_value(view).unwrap()
}

/// An interface in which one can type.
struct Screen {
    state: State,
    effects: Vec<Effect>,
}

impl Screen {
    fn new(columns: u16, rows: u16) -> Screen {
        let state = State::new("unix:///run/volant/volant.sock".to_owned(), false, (columns, rows));
        let mut screen = Screen { state, effects: Vec::new() };
        screen.happens(Event::Linked("0.1.0".to_owned()));
        screen.happens(vms(&[("db", "stopped"), ("web", "running"), ("worker", "failed")]));
        screen
    }

    fn happens(&mut self, event: Event) {
        self.effects = update(&mut self.state, event);
    }

    fn press(&mut self, code: KeyCode, modifiers: KeyModifiers) {
        self.happens(Event::Key(KeyEvent::new(code, modifiers)));
    }

    fn types(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                other => KeyCode::Char(other),
            };
            self.press(code, KeyModifiers::NONE);
        }
    }

    fn text(&self) -> String {
        let (columns, rows) = self.state.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(&self.state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |row| {
            let cells = (0..columns).map(|column| buffer[(column, row)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..rows).map(line).collect::<Vec<_>>().join("\n")
    }

    fn run_words(&self) -> String {
        match &self.effects[..] {
            [Effect::Run { words, .. }] => words.join(" "),
            other => panic!("no command: {other:?}"),
        }
    }
}

#[test]
fn the_whole_screen_is_as_it_was() {
    let mut screen = Screen::new(80, 24);
    screen.types("j");
    screen.happens(Event::Measured("web".to_owned(), metrics(0, 0)));
    screen.happens(Event::Measured("web".to_owned(), metrics(30_000, 70_000)));
    let golden = include_str!("screen.txt");
    let text = screen.text();
    if std::env::var_os("VOLANT_UPDATE_GOLDENS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ctl/tui/screen.txt");
        std::fs::write(path, format!("{text}\n")).unwrap();
        return;
    }
    assert_eq!(text, golden.trim_end(), "VOLANT_UPDATE_GOLDENS=1 writes the new one");
}

#[test]
fn each_pane_shows_what_it_is_for() {
    let mut screen = Screen::new(120, 30);
    screen.types("j");
    assert!(screen.text().contains("02:76:c0:a8:7f:02"), "{}", screen.text());
    screen.types("l");
    assert_eq!(screen.effects, [Effect::Follow(Some("web".to_owned()))]);
    let lines = vec!["\u{1b}[31mlistening\u{1b}[0m\ton 80".to_owned()];
    screen.happens(Event::Log("web".to_owned(), lines));
    assert!(screen.text().contains("listening    on 80"));
    screen.happens(Event::Log("db".to_owned(), vec!["of another".to_owned()]));
    assert!(!screen.text().contains("of another"));
    screen.types("k");
    assert_eq!(screen.effects, [Effect::Follow(Some("db".to_owned()))]);
    screen.types("e");
    let event = json!({ "id": 1, "type": "VM_STOPPED", "name": "db", "status": "stopped",
        "ip_address": "", "mac_address": "", "timestamp": "2026-11-25T10:00:00Z",
        "message": "VM db stopped" });
    screen.happens(Event::Happened(serde_json::from_value(event).unwrap()));
    assert!(screen.text().contains("VM db stopped"));
    screen.types("a");
    assert_eq!(screen.effects, [Effect::FollowAgui]);
    screen.happens(Event::Agui("STATE_SNAPSHOT {}".to_owned()));
    assert!(screen.text().contains("STATE_SNAPSHOT"));
    screen.types("2");
    assert!(screen.text().contains("0 Plugins"));
    screen.types("d");
    assert!(screen.text().contains("No plugins yet"), "{}", screen.text());
    screen.types("?");
    assert!(screen.text().contains("its serial console"));
}

#[test]
fn keys_do_what_the_help_says() {
    let mut screen = Screen::new(80, 24);
    let table = [
        ("s", "vms start db --wait=false"),
        ("S", "vms stop db --wait=false"),
        ("r", "vms restart db --wait=false"),
        ("c", "vms console db"),
        ("x", "vms exec -it db -- /bin/sh"),
        ("Dy", "vms delete db"),
        (":vms list -o wide\n", "vms list -o wide"),
        (":volantd ctl info\n", "info"),
    ];
    for (keys, command) in table {
        screen.types(keys);
        assert_eq!(screen.run_words(), command, "{keys}");
    }
    screen.types("Dn");
    assert_eq!(screen.effects, []);
    assert!(screen.text().contains("not done"));
    screen.types("q");
    assert_eq!(screen.effects, [Effect::Quit]);
    screen.press(KeyCode::Char('z'), KeyModifiers::CONTROL);
    assert_eq!(screen.effects, [Effect::Suspend]);
    screen.types("3s");
    assert!(screen.text().contains("that is not for Images") || screen.text().contains("nothing"));
}

#[test]
fn the_command_line_completes_and_remembers() {
    let mut screen = Screen::new(80, 24);
    screen.types(":vms sta\tw\t");
    assert!(screen.text().contains(":vms start w"), "{}", screen.text());
    assert!(screen.text().contains("web  worker"));
    screen.types("e\t\n");
    assert_eq!(screen.run_words(), "vms start web");
    assert_eq!(screen.state.pane, Pane::Output);
    screen.types(":");
    screen.press(KeyCode::Up, KeyModifiers::NONE);
    assert!(screen.text().contains(":vms start web"));
    screen.press(KeyCode::Char('w'), KeyModifiers::CONTROL);
    screen.types("db\n");
    assert_eq!(screen.run_words(), "vms start db");
    screen.happens(Event::Done {
        command: "vms start db".to_owned(),
        shown: true,
        outcome: Err("it is gone".to_owned()),
    });
    assert!(screen.text().contains("vms start db: it is gone"));
    screen.types(":vms list 'open\n");
    assert_eq!(screen.effects, []);
    assert!(screen.text().contains("a quote is not closed"));
}

#[test]
fn a_filter_leaves_what_matches() {
    let mut screen = Screen::new(80, 24);
    screen.types("/WO");
    let text = screen.text();
    assert!(text.contains("worker") && !text.contains("db  "), "{text}");
    screen.types("\n");
    assert!(screen.text().contains("filter: WO"));
    screen.types("\u{1b}");
    assert_eq!(screen.state.filter, "");
    assert!(screen.text().contains("3 VMs"));
}

#[test]
fn a_lost_connection_is_shown_until_it_is_back() {
    let mut screen = Screen::new(80, 24);
    screen.happens(Event::Lost("no daemon answers at /run/volant/volant.sock".to_owned()));
    let text = screen.text();
    assert!(text.contains("◌ reconnecting"), "{text}");
    assert!(text.contains("reconnecting: no daemon answers at"), "{text}");
    screen.happens(Event::Linked("0.1.0".to_owned()));
    assert_eq!(screen.state.link, Link::Up);
    assert!(screen.text().contains("connected again"));
}

#[test]
fn the_mark_stays_on_its_vm() {
    let mut screen = Screen::new(80, 24);
    screen.types("j");
    assert_eq!(screen.state.vm().unwrap().name, "web");
    screen.happens(vms(&[("api", "running"), ("db", "stopped"), ("web", "running")]));
    assert_eq!(screen.state.vm().unwrap().name, "web");
    screen.happens(vms(&[("api", "running")]));
    assert_eq!(screen.state.vm().unwrap().name, "api");
    screen.happens(vms(&[]));
    assert!(screen.state.vm().is_none());
    assert!(screen.text().contains("No VMs yet"));
    let many: Vec<String> = (0..100).map(|number| format!("vm-{number:02}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "running")).collect();
    screen.happens(vms(&many));
    screen.types("G");
    assert!(screen.text().contains("vm-99"), "{}", screen.text());
    screen.types("g");
    assert!(screen.text().contains("vm-00"));
}

#[test]
fn the_mouse_selects_and_scrolls() {
    let mut screen = Screen::new(80, 24);
    let text = screen.text();
    let find = |text: &str, wanted: &str| {
        let row = text.lines().position(|line| line.contains(wanted)).unwrap();
        let line = text.lines().nth(row).unwrap();
        let column = line[..line.find(wanted).unwrap()].chars().count();
        (u16::try_from(column).unwrap(), u16::try_from(row).unwrap())
    };
    let click = |screen: &mut Screen, (column, row)| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        let modifiers = KeyModifiers::NONE;
        screen.happens(Event::Mouse(MouseEvent { kind, column, row, modifiers }));
    };
    click(&mut screen, find(&text, "worker"));
    assert_eq!(screen.state.vm().unwrap().name, "worker");
    click(&mut screen, find(&text, "e Events"));
    assert_eq!((screen.state.pane, screen.state.focus), (Pane::Events, Focus::Pane));
    click(&mut screen, find(&text, "3 Images"));
    assert_eq!(screen.state.subject, Subject::Images);
}

#[test]
fn a_pane_scrolls_back_at_once_from_its_end() {
    let mut screen = Screen::new(80, 24);
    screen.types("o");
    for number in 0..100 {
        screen.happens(Event::Output(format!("line {number}.")));
    }
    assert!(screen.text().contains("line 99."));
    screen.types("\tg");
    assert!(screen.text().contains("line 0.") && screen.text().contains("more below"));
    screen.types("j");
    assert!(!screen.text().contains("line 0."), "{}", screen.text());
    screen.types("G");
    assert!(screen.text().contains("line 99."));
    screen.types("k");
    assert!(!screen.text().contains("line 99."), "{}", screen.text());
}

#[test]
fn every_size_can_be_drawn() {
    for (columns, rows) in [(1, 1), (39, 9), (40, 10), (80, 24), (109, 12), (110, 12), (300, 100)] {
        let mut screen = Screen::new(columns, rows);
        for keys in ["j", "z", "\t", "z", "/x", "\n", ":vms", "\u{1b}", "?"] {
            screen.types(keys);
            screen.text();
        }
    }
    assert!(Screen::new(30, 9).text().contains("at least"));
    let mut screen = Screen::new(80, 24);
    screen.happens(Event::Resized(120, 40));
    assert_eq!(screen.text().lines().count(), 40);
}

#[test]
fn commands_that_need_the_terminal_are_known() {
    let needs = |line: &str| needs_terminal(&shlex::split(line).unwrap());
    assert!(needs("vms console web"));
    assert!(needs("vms exec -it web -- /bin/sh"));
    assert!(needs("vms attach web 3"));
    assert!(!needs("vms exec web -- ls"));
    assert!(!needs("vms list"));
    assert!(!needs("no such thing"));
    assert_eq!(Screen::new(80, 24).state.mode, Mode::Browse);
}
