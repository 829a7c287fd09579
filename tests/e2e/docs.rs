//! The quick start and the guides of docs/, line by line as a reader types them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Daemon, named};

/// Pages whose every `sh` block is run, in order and in one shell.
const PAGES: [&str; 3] = ["quickstart.md", "guide-plugin.md", "guide-volumes.md"];

/// A block of commands, and what its output has to hold.
struct Block {
    commands: String,
    expected: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut kind = None;
    for line in page.lines() {
        match (kind, line.strip_prefix("```")) {
            (None, Some(begun)) => {
                kind = Some(begun);
                if begun == "sh" {
                    found.push(Block { commands: String::new(), expected: Vec::new() });
                }
            }
            (Some(_), Some(_)) => kind = None,
            (Some("sh"), None) => writeln!(found.last_mut().unwrap().commands, "{line}").unwrap(),
            (Some("text"), None) => found.last_mut().unwrap().expected.push(line.to_owned()),
            _ => {}
        }
    }
    found
}

#[test]
fn the_pages_that_are_to_be_typed_can_be_typed() {
    let daemon = Daemon::start();
    let programs = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(named("VOLANTD"), programs.path().join("volantd")).unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    for name in PAGES {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        let blocks = blocks(&std::fs::read_to_string(page).unwrap());
        assert!(3 <= blocks.len(), "{name} has no commands");
        let mut script = "set -eu\n".to_owned();
        for (number, block) in blocks.iter().enumerate() {
            writeln!(script, "{}echo '== {number}'", block.commands).unwrap();
        }
        // The test's daemon listens beside one that may be running here.
        let script = script.replace("127.0.0.1:7777", "127.0.0.1:17777");
        let out = Command::new("sh")
            .args(["-c", &script])
            .env("PATH", &path)
            .env("VOLANT_HOST", daemon.host())
            .output()
            .unwrap();
        assert!(out.status.success(), "{name}: {out:?}");
        let mut rest = String::from_utf8(out.stdout).unwrap();
        for (number, block) in blocks.iter().enumerate() {
            let (shown, after) = rest.split_once(&format!("== {number}\n")).unwrap();
            for line in &block.expected {
                assert!(shown.lines().any(|seen| seen == line), "{name}: no {line:?} in {shown:?}");
            }
            rest = after.to_owned();
        }
    }
    let left = daemon.ctl(&["vms", "list", "-o", "json"]);
    assert_eq!(
        String::from_utf8_lossy(&left.stdout).trim(),
        "[]",
        "each page takes away what it made"
    );
}
