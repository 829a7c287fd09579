//! What a client wants: `forwardedProps.volant`, a JSON object as its last message, or a line in the
//! words of `ctl`.
//!
//! ```text
//! vm_create name=web memory_mb=128 wait=true      the tool's name, arguments by name
//! vms create web --memory_mb 128                  the words of ctl, the name where it stands
//! vms exec web -- ls -l /                         what follows -- is argv
//! ```

use serde_json::{Map, Value, json};

use crate::api::agui::event::RunInput;
use crate::api::operations::{self, Operation, path_parameters};

/// Bytes of a line that is looked at.
const LINE_LEN_MAX: usize = 64 * 1024;

/// An operation and its arguments.
#[derive(Clone, Debug)]
pub struct Command {
    /// Which.
    pub what: What,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// What can be run.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// An operation of the registry.
    Operation(&'static Operation),
    /// Follow the state until the client has had enough, or `maxSeconds` are over.
    Watch,
}

impl What {
    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            What::Operation(operation) => operation.tool.name().unwrap_or(operation.id),
            What::Watch => "watch",
        }
    }
}

/// The command of an input; `None` if it holds none, and help is due.
///
/// # Errors
/// One sentence: there is a command, and it makes no sense.
pub fn of(input: &RunInput) -> Result<Option<Command>, String> {
    let forwarded = input.forwarded();
    if let Some(op) = forwarded.op {
        return named(&op).map(|what| Some(Command { what, arguments: forwarded.args }));
    }
    let Some(words) = input.last_words() else { return Ok(None) };
    let words = words.trim();
    if LINE_LEN_MAX < words.len() {
        return Err(format!("a command has at most {LINE_LEN_MAX} bytes"));
    }
    if let Ok(Value::Object(object)) = serde_json::from_str::<Value>(words) {
        let op = object.get("op").and_then(Value::as_str);
        let op = op.ok_or("the JSON object has no `op`")?;
        let arguments = object.get("args").and_then(Value::as_object).cloned();
        let arguments = arguments.unwrap_or_default();
        return named(op).map(|what| Some(Command { what, arguments }));
    }
    line(words)
}

fn named(name: &str) -> Result<What, String> {
    if name == "watch" {
        return Ok(What::Watch);
    }
    let found = operations::named(name).filter(|operation| operation.tool.name().is_some());
    found.map(What::Operation).ok_or_else(|| format!("there is no operation {name:?}"))
}

/// A line in words; `None` if it does not begin with an operation.
fn line(text: &str) -> Result<Option<Command>, String> {
    let words = words(text)?;
    let Some(first) = words.first() else { return Ok(None) };
    if let Ok(what) = named(first) {
        return arguments(what, &words[1..]).map(Some);
    }
    let starts = |verb: &str| verb.split(' ').zip(&words).all(|(verb, word)| verb == word);
    let found = operations::all().filter(|operation| operation.tool.name().is_some()).find_map(
        |operation| {
            let verb = operation.verb.name()?;
            let len = verb.split(' ').count();
            (len <= words.len() && starts(verb)).then_some((operation, len))
        },
    );
    let Some((operation, len)) = found else { return Ok(None) };
    arguments(What::Operation(operation), &words[len..]).map(Some)
}

fn arguments(what: What, words: &[String]) -> Result<Command, String> {
    let mut arguments = Map::new();
    let mut rest = words.iter();
    let mut positional = vec![];
    while let Some(word) = rest.next() {
        if word == "--" {
            arguments.insert("argv".to_owned(), json!(rest.collect::<Vec<_>>()));
            break;
        }
        if let Some(name) = word.strip_prefix("--") {
            let value = rest.next().ok_or_else(|| format!("{word} needs a value"))?;
            arguments.insert(name.replace('-', "_"), value_of(value));
        } else if let Some((name, value)) = word.split_once('=') {
            arguments.insert(name.to_owned(), value_of(value));
        } else {
            positional.push(word);
        }
    }
    if let What::Operation(operation) = what {
        // A VM's creation names it in its body.
        let mut names: Vec<&str> = path_parameters(operation.path).collect();
        if names.is_empty() && operation.body.is_some() {
            names.push("name");
        }
        for (name, value) in names.into_iter().zip(positional) {
            arguments.insert(name.to_owned(), json!(value));
        }
    }
    Ok(Command { what, arguments })
}

/// Numbers, booleans, lists and objects as JSON has them; all else is text.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

/// Words between blanks; quotes keep blanks, a backslash keeps the next character.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or("nothing follows the last backslash")?;
                word.get_or_insert_default().push(next);
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(&'static str, Value)> {
        let input = json!({
            "threadId": "t", "runId": "r",
            "messages": [{ "id": "1", "role": "user", "content": text }],
        });
        let command = of(&serde_json::from_value(input).unwrap()).unwrap()?;
        Some((command.what.name(), Value::Object(command.arguments)))
    }

    #[test]
    fn commands_are_json_or_words() {
        let table = [
            ("{\"op\": \"vm_get\", \"args\": {\"name\": \"a\"}}", "vm_get", json!({ "name": "a" })),
            ("vm_list", "vm_list", json!({})),
            (
                "vm_create name=a memory_mb=96 wait=true",
                "vm_create",
                json!({ "name": "a", "memory_mb": 96, "wait": true }),
            ),
            ("vms create a --memory_mb 96", "vm_create", json!({ "name": "a", "memory_mb": 96 })),
            (
                "vms exec a -- sh -c 'echo \"x y\"'",
                "vm_exec",
                json!({ "name": "a", "argv": ["sh", "-c", "echo \"x y\""] }),
            ),
            ("  vms   delete  a ", "vm_delete", json!({ "name": "a" })),
            ("watch maxSeconds=3", "watch", json!({ "maxSeconds": 3 })),
        ];
        for (text, op, arguments) in table {
            assert_eq!(parsed(text), Some((op, arguments)), "{text}");
        }
        assert_eq!(parsed("hello, what can you do?"), None);
        // Keys are not handed out in a conversation.
        assert_eq!(parsed("tokens list"), None);
    }
}
