//! The line that is typed: editing, history, completion.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Characters of a line.
const LEN_MAX: usize = 512;

/// A line and the cursor in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    text: Vec<char>,
    cursor: usize,
    /// How far back in the history it is; 0 is the line that is typed.
    back: usize,
    /// What was typed before one went back.
    draft: String,
}

/// What has become of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    Changed,
    Entered(String),
    Left,
    /// The word before the cursor is to be completed.
    Complete,
}

impl Line {
    /// With a text, the cursor at its end.
    pub fn of(text: &str) -> Line {
        let text: Vec<char> = text.chars().take(LEN_MAX).collect();
        Line { cursor: text.len(), text, ..Line::default() }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// What is before the cursor.
    pub fn before(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// Puts `word` in place of the last `len` characters before the cursor.
    pub fn replace(&mut self, len: usize, word: &str) {
        let start = self.cursor.saturating_sub(len);
        let word: Vec<char> = word.chars().collect();
        self.text.splice(start..self.cursor, word.iter().copied());
        self.cursor = start + word.len();
        self.text.truncate(LEN_MAX);
        self.cursor = self.cursor.min(self.text.len());
    }

    /// Takes a key; `history` has the latest line last.
    pub fn key(&mut self, key: KeyEvent, history: &[String]) -> Typed {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return Typed::Left,
            KeyCode::Char('c' | 'g') if control => return Typed::Left,
            KeyCode::Enter => return Typed::Entered(self.text()),
            KeyCode::Tab => return Typed::Complete,
            KeyCode::Char('w') if control => {
                let before = self.before();
                let kept = before.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.replace(before.chars().count() - before[..kept].chars().count(), "");
            }
            KeyCode::Char('u') if control => self.replace(self.cursor, ""),
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.text.len(),
            KeyCode::Char(_) if control => {}
            KeyCode::Char(c) if self.text.len() < LEN_MAX => {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
            }
            // As k9s and vi have it: nothing left to take back leaves the line.
            KeyCode::Backspace if self.text.is_empty() => return Typed::Left,
            KeyCode::Backspace => self.replace(1, ""),
            KeyCode::Delete if self.cursor < self.text.len() => drop(self.text.remove(self.cursor)),
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            KeyCode::Up if self.back < history.len() => self.go(self.back + 1, history),
            KeyCode::Down if 0 < self.back => self.go(self.back - 1, history),
            _ => {}
        }
        Typed::Changed
    }

    fn go(&mut self, back: usize, history: &[String]) {
        let draft = if self.back == 0 { self.text() } else { std::mem::take(&mut self.draft) };
        let text = match back {
            0 => draft.clone(),
            _ => history[history.len() - back].clone(),
        };
        *self = Line { back, draft, ..Line::of(&text) };
    }
}

/// What all candidates begin with.
pub fn common(candidates: &[String]) -> String {
    let Some((first, rest)) = candidates.split_first() else { return String::new() };
    let same = |one: &String| first.chars().zip(one.chars()).take_while(|(a, b)| a == b).count();
    let len = rest.iter().map(same).min().unwrap_or(first.chars().count());
    first.chars().take(len).collect()
}
