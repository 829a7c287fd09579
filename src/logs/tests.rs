use jiff::Timestamp;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Everything from a place on, as lines of text.
fn text(folder: &Path, start: Start) -> String {
    let mut reader = Reader::open(folder.to_owned(), start).unwrap();
    let mut text = String::new();
    loop {
        let entries = reader.read().unwrap();
        if entries.is_empty() {
            return text;
        }
        for entry in entries {
            text.push_str(std::str::from_utf8(&entry.bytes).unwrap());
            text.push_str(if entry.ends_line { "\n" } else { "" });
        }
    }
}

fn tail(count: usize) -> Start {
    Start { tail: Some(count), since: None }
}

fn since(second: i64) -> Start {
    Start { tail: None, since: Some(at(second)) }
}

#[test]
fn what_was_written_is_read_from_any_place() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), VmId(7));
    assert_eq!(text(&folder, Start::default()), "", "a log that does not exist is empty");
    let mut writer = Writer::open(folder.clone(), LEN_MIN).unwrap();
    writer.append(at(10), Stream::Stdout, b"one\ntw").unwrap();
    writer.append(at(20), Stream::Stdout, b"o\n\n").unwrap();
    writer.append(at(30), Stream::Stderr, b"four\nfive").unwrap();
    let table = [
        (Start::default(), "one\ntwo\n\nfour\nfive"),
        (tail(0), ""),
        (tail(1), "five"),
        (tail(2), "four\nfive"),
        (tail(4), "two\n\nfour\nfive"),
        (tail(99), "one\ntwo\n\nfour\nfive"),
        (since(10), "one\ntwo\n\nfour\nfive"),
        // A line belongs to the time at which it began.
        (since(11), "\nfour\nfive"),
        (since(30), "four\nfive"),
        (since(31), ""),
        (Start { tail: Some(1), since: Some(at(20)) }, "five"),
    ];
    for (start, expected) in table {
        assert_eq!(text(&folder, start), expected, "{start:?}");
    }
    let mut reader = Reader::open(folder.clone(), since(30)).unwrap();
    let streams: Vec<_> = reader.read().unwrap().iter().map(|entry| entry.stream).collect();
    assert_eq!(streams, [Stream::Stderr, Stream::Stderr]);
}

#[test]
fn a_reader_follows_through_rotation_and_the_log_stays_within_its_size() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), VmId(1));
    let mut writer = Writer::open(folder.clone(), LEN_MIN).unwrap();
    let mut reader = Reader::open(folder.clone(), Start::default()).unwrap();
    let mut seen = 0;
    for number in 0..20_000 {
        writer.append(at(number), Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
        if number % 100 == 0 || number == 19_999 {
            loop {
                let entries = reader.read().unwrap();
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    assert_eq!(entry.bytes, format!("line {seen}").as_bytes());
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 20_000, "a reader that keeps up misses nothing");
    let files = fs::read_dir(&folder).unwrap().flatten();
    let len: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!((LEN_MIN / 2..=LEN_MIN).contains(&len), "{len} bytes kept");
    assert_eq!(text(&folder, tail(1)), "line 19999\n");
}

#[test]
fn one_large_write_stays_within_the_size_too() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), VmId(1));
    let mut writer = Writer::open(folder.clone(), LEN_MIN).unwrap();
    // Each byte becomes a line of forty.
    writer.append(at(1), Stream::Stdout, &vec![b'\n'; 64 * 1024]).unwrap();
    let files = fs::read_dir(&folder).unwrap().flatten();
    let len: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!(len <= LEN_MIN, "{len} bytes kept");
}

#[test]
fn a_torn_entry_is_skipped_after_a_crash() {
    let root = tempfile::tempdir().unwrap();
    let folder = folder(root.path(), VmId(1));
    let mut writer = Writer::open(folder.clone(), LEN_MIN).unwrap();
    writer.append(at(1), Stream::Stdout, b"whole\n").unwrap();
    drop(writer);
    let path = segment(&folder, 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"2026-01-01T00:00:00.000Z std");
    fs::write(&path, bytes).unwrap();
    assert_eq!(text(&folder, Start::default()), "whole\n");
    let mut writer = Writer::open(folder.clone(), LEN_MIN).unwrap();
    writer.append(at(2), Stream::Stdout, b"after\n").unwrap();
    assert_eq!(text(&folder, Start::default()), "whole\nafter\n");
}

#[test]
fn logs_go_with_their_vms() {
    let root = tempfile::tempdir().unwrap();
    for id in [1, 2] {
        Writer::open(folder(root.path(), VmId(id)), LEN_MIN).unwrap();
    }
    fs::write(root.path().join("note"), "").unwrap();
    retain(root.path(), &BTreeSet::from([VmId(2)])).unwrap();
    assert!(!folder(root.path(), VmId(1)).exists() && folder(root.path(), VmId(2)).exists());
    assert!(root.path().join("note").exists(), "only what was made here is removed");
    remove(root.path(), VmId(2)).unwrap();
    remove(root.path(), VmId(2)).unwrap();
    retain(&root.path().join("none"), &BTreeSet::new()).unwrap();
}
