//! Prompts for common work.

use rmcp::ErrorData;
use rmcp::model::{GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde_json::Value;

/// A prompt: its text has `{argument}`s.
struct Known {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    arguments: &'static [(&'static str, &'static str)],
    text: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        name: "diagnose-vm",
        title: "Find out what is wrong with a VM",
        description: "Looks at a VM's state, events and logs and names the cause.",
        arguments: &[("name", "The VM.")],
        text: "Find out what is wrong with the VM {name}. Look at it with vm_get, read its last 200 \
               lines with vm_logs (source console as well), and what has happened with events_list. \
               If it runs, look inside with vm_exec: dmesg, free, df, ps. Change nothing. Name the \
               cause, the evidence for it, and what would mend it.",
    },
    Known {
        name: "run-in-sandbox",
        title: "Do something in a fresh VM",
        description: "Creates a VM, does the task in it, reports, and removes the VM.",
        arguments: &[("name", "Name for the VM."), ("task", "What to do in it.")],
        text: "Create a VM called {name} with vm_create and wait=true. In it, with vm_exec, do \
               this: {task}\nReport the commands, their exit codes and the outcome. Then remove the \
               VM with vm_delete, whatever happened.",
    },
];

/// All prompts.
pub fn all() -> Vec<Prompt> {
    let argument = |(name, text): &(&str, &str)| {
        PromptArgument::new(*name).with_description(*text).with_required(true)
    };
    let prompt = |known: &Known| {
        let arguments = known.arguments.iter().map(argument).collect();
        let prompt = Prompt::new(known.name, Some(known.description), Some(arguments));
        prompt.with_title(known.title)
    };
    KNOWN.iter().map(prompt).collect()
}

/// `prompts/get`.
///
/// # Errors
/// There is no such prompt, or an argument is missing.
pub fn get(name: &str, arguments: &JsonObject) -> Result<GetPromptResult, ErrorData> {
    let invalid = |text: String| ErrorData::invalid_params(text, None);
    let known = KNOWN.iter().find(|known| known.name == name);
    let known = known.ok_or_else(|| invalid(format!("there is no prompt {name}")))?;
    let mut text = known.text.to_owned();
    for (argument, _) in known.arguments {
        let value = arguments.get(*argument).and_then(Value::as_str);
        let value = value.ok_or_else(|| invalid(format!("{argument}: a string is needed")))?;
        text = text.replace(&format!("{{{argument}}}"), value);
    }
    let message = PromptMessage::new_text(Role::User, text);
    Ok(GetPromptResult::new(vec![message]).with_description(known.description))
}
