//! The documentation holds together: every page is in the book, every link and every file that is named
//! leads somewhere. Its commands are run by `tests/e2e/docs.rs`.
#![expect(clippy::unwrap_used, reason = "a page that cannot be read is the test's failure")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Pages of the book, and the README.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    assert!(20 < pages.len(), "the pages are not where this test looks for them");
    pages
}

/// What is in fences or indented is an example, and no part of the text.
fn without_examples(text: &str) -> String {
    let mut fenced = false;
    let kept = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !is_fence && !fenced && !line.starts_with("    ")
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next());
    targets.collect()
}

/// The name that a heading has in an address, as GitHub and mdbook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = without_examples(&fs::read_to_string(page).unwrap());
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).any(|anchor| anchor == wanted)
}

/// Files of the tree that a text names as such: `docs/x.md`, `src/api/mod.rs`, `tests/e2e/`.
fn named_files(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    text.split(|c| !is_part(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            ["docs/", "src/", "tests/", "guest-agent/", "kernel/"]
                .iter()
                .any(|folder| word.starts_with(folder))
        })
        .filter(|word| word.ends_with('/') || Path::new(word).extension().is_some())
        .collect()
}

#[test]
fn every_link_and_every_named_file_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let text = without_examples(&text);
        for target in links(&text).into_iter().filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            if !there.exists() || !anchor.is_empty() && !has_anchor(&there, anchor) {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
        for name in named_files(&text) {
            if !root().join(name).exists() {
                broken.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_book() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = links(&summary).into_iter().map(|at| docs.join(at)).collect();
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.starts_with(&docs) && !page.ends_with("SUMMARY.md"))
        .filter(|page| !listed.contains(page))
        .collect();
    assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
}

#[test]
fn headings_have_the_names_that_links_use() {
    assert_eq!(anchor(" What is `there`, and why?"), "what-is-there-and-why");
    let text = "[a](b.md#c) and\n```\n[no](x)\n```\n    [no](y)\n[d](e)";
    assert_eq!(links(&without_examples(text)), ["b.md#c", "e"]);
    assert_eq!(named_files("see docs/a.md, `src/x/` and 1/2.").len(), 2);
}
