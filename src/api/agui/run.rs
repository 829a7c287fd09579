//! One run: from `RUN_STARTED` to its end, whatever happens in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::api::agui::Agents;
use crate::api::agui::command::{self, Command, What};
use crate::api::agui::event::{Resume, RunInput};
use crate::api::agui::interrupt::{OPEN_FOR, Question};
use crate::api::agui::record::Record;
use crate::api::agui::state::State;
use crate::api::operations::{Call, Caller, Operation, call, open, path_parameters};
use crate::api::view;
use crate::model::{Event, VmName};
use crate::wire::Problem;

/// Seconds that `watch` lasts unless told otherwise, and at the most.
const WATCH_SECONDS: u64 = 60;
const WATCH_SECONDS_MAX: u64 = 24 * 3600;
/// Bytes of a command's output that the activity shows one by one; the result has it all.
const ACTIVITY_LEN_MAX: usize = 256 * 1024;

const HELP: &str = "Tell me what to do, as `vms create web --memory_mb 128 --wait true`, \
                    `vms exec web -- uname -a`, `vms list`, `vms delete web`, or as JSON: \
                    {\"op\": \"vm_list\", \"args\": {}}. GET /api/v1/agui/capabilities lists all \
                    operations.";

/// How a run ends.
enum End {
    /// With this result.
    Done(Value),
    /// With a question.
    Asked(Value),
    /// As the client wished.
    Cancelled,
}

/// Why a run fails.
struct Failure {
    code: String,
    message: String,
}

fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure { code: code.to_owned(), message: message.into() }
}

impl From<Box<Problem>> for Failure {
    fn from(problem: Box<Problem>) -> Failure {
        Failure { code: problem.code, message: problem.detail }
    }
}

/// A run under way.
pub struct Run {
    agents: Agents,
    caller: Caller,
    input: RunInput,
    only: Option<VmName>,
    record: Arc<Record>,
    state: State,
    live: Receiver<Arc<Event>>,
    step: Option<String>,
}

impl Run {
    /// A run that has not begun. Events from now on are part of it.
    pub fn new(
        agents: Agents,
        caller: Caller,
        input: RunInput,
        only: Option<VmName>,
        record: Arc<Record>,
    ) -> Run {
        let live = agents.orchestrator.subscribe();
        let state = State::now(&agents.orchestrator, only.as_ref(), 0);
        Run { agents, caller, input, only, record, state, live, step: None }
    }

    fn emit(&self, mut event: Value) {
        event["timestamp"] = json!(Timestamp::now().as_millisecond());
        self.record.push(&event);
    }

    /// Performs it; everything it says is in its record.
    pub async fn perform(mut self) {
        let (thread_id, run_id) = (self.input.thread_id.clone(), self.input.run_id.clone());
        self.emit(json!({
            "type": "RUN_STARTED", "threadId": thread_id, "runId": run_id, "protocolVersion": "1.0",
        }));
        if let Ok(rev) = self.agents.orchestrator.last_event_id().await {
            self.state = State::now(&self.agents.orchestrator, self.only.as_ref(), rev);
        }
        self.emit(json!({ "type": "STATE_SNAPSHOT", "snapshot": self.state.document() }));
        let end = self.work().await;
        self.close_step();
        self.emit(match end {
            Ok(end) => {
                let (outcome, result) = match end {
                    End::Done(result) => (json!({ "type": "success" }), Some(result)),
                    End::Asked(question) => {
                        (json!({ "type": "interrupt", "interrupts": [question] }), None)
                    }
                    End::Cancelled => (json!({ "type": "cancelled" }), None),
                };
                let mut finished = json!({
                    "type": "RUN_FINISHED", "threadId": thread_id, "runId": run_id,
                    "outcome": outcome,
                });
                if let Some(result) = result {
                    finished["result"] = result;
                }
                finished
            }
            Err(Failure { code, message }) => {
                json!({ "type": "RUN_ERROR", "code": code, "message": message })
            }
        });
        self.record.end();
    }

    async fn work(&mut self) -> Result<End, Failure> {
        let owner = Arc::clone(&self.caller.principal.name);
        let thread_id = self.input.thread_id.clone();
        let question = self.agents.interrupts.of(&owner, &thread_id);
        if let Some(resume) = self.input.resume.first().cloned() {
            return self.resume(resume, question).await;
        }
        let is_open = |question: &Question| {
            question.outcome.is_none() && question.asked_at.elapsed() < OPEN_FOR
        };
        if question.as_ref().is_some_and(is_open) {
            let text = "this thread waits for an answer; send it as `resume`";
            return Err(failure("interrupt_pending", text));
        }
        let command = command::of(&self.input).map_err(|text| failure("invalid_command", text))?;
        let Some(mut command) = command else {
            self.say(HELP);
            return Ok(End::Done(json!({ "help": true })));
        };
        self.confine(&mut command)?;
        let What::Operation(operation) = command.what else {
            return self.watch(&command.arguments).await;
        };
        let call_id = self.announce(&command);
        let asks = operation.hints.destructive && !operation.hints.open_world;
        if asks && !self.input.forwarded().confirm {
            return self.ask(command, &call_id);
        }
        self.execute(operation, command.arguments, &call_id).await
    }

    /// The agent of one VM works on that VM alone.
    fn confine(&self, command: &mut Command) -> Result<(), Failure> {
        let (Some(only), What::Operation(operation)) = (&self.only, command.what) else {
            return Ok(());
        };
        let names_vm = path_parameters(operation.path).next() == Some("name")
            && operation.path.starts_with("/api/v1/vms/");
        let named = command.arguments.get("name").and_then(Value::as_str);
        if !names_vm || named.is_some_and(|name| name != only.as_str()) {
            let text = format!("here only {only} can be worked on; ask /api/v1/agui");
            return Err(failure("out_of_scope", text));
        }
        command.arguments.insert("name".to_owned(), json!(only.as_str()));
        Ok(())
    }

    fn message_id(&self, number: u32) -> String {
        format!("{}-m{number}", self.input.run_id)
    }

    fn text(&self, id: &str, text: &str) {
        let start = json!({ "type": "TEXT_MESSAGE_START", "messageId": id, "role": "assistant" });
        self.emit(start);
        self.emit(json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": id, "delta": text }));
        self.emit(json!({ "type": "TEXT_MESSAGE_END", "messageId": id }));
    }

    fn say(&self, text: &str) {
        self.text(&self.message_id(1), text);
    }

    /// Says what will be done, and opens and closes the tool call.
    fn announce(&self, command: &Command) -> String {
        let (op, arguments) = (command.what.name(), Value::Object(command.arguments.clone()));
        let subject = subject_of(command);
        self.say(format!("{op} {subject}").trim());
        let id = format!("{}-c1", self.input.run_id);
        self.emit(json!({
            "type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": op,
            "parentMessageId": self.message_id(1),
        }));
        let arguments = arguments.to_string();
        self.emit(json!({ "type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": arguments }));
        self.emit(json!({ "type": "TOOL_CALL_END", "toolCallId": id }));
        id
    }

    /// Ends the run with a question: what cannot be undone wants a yes.
    fn ask(&mut self, command: Command, call_id: &str) -> Result<End, Failure> {
        let op = command.what.name();
        let subject = subject_of(&command);
        let message = format!("{op} {subject} cannot be undone. Do it?");
        let id = format!("{}-i1", self.input.run_id);
        let expires_at = Timestamp::now().checked_add(OPEN_FOR).ok();
        let mut question = json!({
            "id": id, "reason": "tool_call", "message": message, "toolCallId": call_id,
            "responseSchema": {
                "type": "object",
                "properties": {
                    "approved": { "type": "boolean" }, "editedArgs": { "type": "object" },
                },
                "required": ["approved"],
            },
        });
        if let Some(expires_at) = expires_at {
            question["expiresAt"] = json!(format!("{expires_at:.3}"));
        }
        let arguments = Value::Object(command.arguments.clone()).to_string();
        let asked = Question {
            id,
            owner: Arc::clone(&self.caller.principal.name),
            command,
            tool_call_id: call_id.to_owned(),
            asked_at: Instant::now(),
            outcome: None,
        };
        let remembered = self.agents.interrupts.ask(&self.input.thread_id, asked);
        remembered.map_err(|text| failure("too_many_interrupts", text))?;
        self.refresh(None);
        self.emit(json!({ "type": "STATE_SNAPSHOT", "snapshot": self.state.document() }));
        let mut messages = self.input.messages.clone();
        messages.push(json!({
            "id": self.message_id(1), "role": "assistant", "content": format!("{op} {subject}"),
            "toolCalls": [{
                "id": call_id, "type": "function",
                "function": { "name": op, "arguments": arguments },
            }],
        }));
        self.emit(json!({ "type": "MESSAGES_SNAPSHOT", "messages": messages }));
        Ok(End::Asked(question))
    }

    /// Goes on with what was asked about.
    async fn resume(&mut self, resume: Resume, asked: Option<Question>) -> Result<End, Failure> {
        let Some(asked) = asked.filter(|asked| asked.id == resume.interrupt_id) else {
            return Err(failure("interrupt_not_found", "this thread waits for no such answer"));
        };
        let call_id = asked.tool_call_id.clone();
        if let Some(outcome) = asked.outcome {
            // The same answer again: what came of it is told, and not done twice.
            self.result(&call_id, &outcome);
            return Ok(End::Done(outcome));
        }
        if OPEN_FOR <= asked.asked_at.elapsed() {
            return Err(failure("interrupt_expired", "the answer came too late"));
        }
        let owner = Arc::clone(&self.caller.principal.name);
        let thread_id = self.input.thread_id.clone();
        let is_yes = resume.status == "resolved" && resume.payload["approved"] == true;
        let pending = if is_yes { json!({ "pending": true }) } else { json!({ "declined": true }) };
        if !self.agents.interrupts.settle(&owner, &thread_id, pending.clone()) {
            return Err(failure("interrupt_not_found", "another run has this answer"));
        }
        if !is_yes {
            self.result(&call_id, &pending);
            return Ok(End::Done(pending));
        }
        let mut command = asked.command;
        if let Some(edited) = resume.payload["editedArgs"].as_object() {
            command.arguments = edited.clone();
        }
        self.confine(&mut command)?;
        let What::Operation(operation) = command.what else {
            return self.watch(&command.arguments).await;
        };
        let end = self.execute(operation, command.arguments, &call_id).await;
        let outcome = match &end {
            Ok(End::Done(result)) => result.clone(),
            Ok(_) => json!({ "cancelled": true }),
            Err(error) => json!({ "error": error.code, "detail": error.message }),
        };
        self.agents.interrupts.settle(&owner, &thread_id, outcome);
        end
    }

    fn result(&self, call_id: &str, result: &Value) {
        self.emit(json!({
            "type": "TOOL_CALL_RESULT", "messageId": format!("{call_id}-result-{}", self.input.run_id),
            "toolCallId": call_id, "role": "tool", "content": result.to_string(),
        }));
    }

    async fn execute(
        &mut self,
        operation: &'static Operation,
        arguments: Map<String, Value>,
        call_id: &str,
    ) -> Result<End, Failure> {
        let subject = arguments.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let op = operation.tool.name().unwrap_or(operation.id);
        self.open_step(format!("{op}:begin"));
        let (routes, caller) = (self.agents.routes.clone(), self.caller.clone());
        let request = Call { routes, operation, arguments, caller };
        let cancelled = self.record.cancelled().clone();
        let work: Result<Map<String, Value>, Box<Problem>> = if operation.id == "execInVM" {
            let answer = open(request).await?;
            tokio::select! {
                done = self.exec(answer) => done,
                () = cancelled.cancelled() => return Ok(End::Cancelled),
            }
        } else {
            let mut work = std::pin::pin!(call(request));
            loop {
                tokio::select! {
                    done = &mut work => break done,
                    () = cancelled.cancelled() => return Ok(End::Cancelled),
                    event = next(&mut self.live) => self.happened(&event, op, &subject),
                }
            }
        };
        // What has happened before the answer is told before it.
        while let Ok(event) = self.live.try_recv() {
            self.happened(&event, op, &subject);
        }
        self.refresh(None);
        self.close_step();
        let result = Value::Object(work?);
        self.result(call_id, &result);
        self.text(&self.message_id(2), &format!("{op} {subject}: done"));
        Ok(End::Done(result))
    }

    /// A lifecycle event: told as it is, as a step of what is done, and as a change of the state.
    fn happened(&mut self, event: &Event, op: &str, subject: &str) {
        if self.only.as_ref().is_some_and(|only| *only != event.name) {
            return;
        }
        if event.name.as_str() == subject {
            let phase = event.kind.as_str().trim_start_matches("VM_").to_ascii_lowercase();
            self.open_step(format!("{op}:{phase}"));
        }
        let value = json!(view::event(event));
        self.emit(json!({ "type": "CUSTOM", "name": "volant.vm.lifecycle", "value": value }));
        self.refresh(Some(event.id));
    }

    fn refresh(&mut self, rev: Option<i64>) {
        let patch = self.state.advance(&self.agents.orchestrator, self.only.as_ref(), rev);
        if let Some(patch) = patch {
            self.emit(json!({ "type": "STATE_DELTA", "delta": patch }));
        }
    }

    fn open_step(&mut self, name: String) {
        self.close_step();
        self.emit(json!({ "type": "STEP_STARTED", "stepName": name }));
        self.step = Some(name);
    }

    fn close_step(&mut self) {
        if let Some(name) = self.step.take() {
            self.emit(json!({ "type": "STEP_FINISHED", "stepName": name }));
        }
    }

    /// Follows a command's output as an activity, and returns what a buffered answer would be.
    async fn exec(&self, answer: Response) -> Result<Map<String, Value>, Box<Problem>> {
        let id = format!("{}-a1", self.input.run_id);
        let activity = |kind: &str, key: &str, value: Value| {
            let mut event = json!({
                "type": kind, "messageId": id, "activityType": "volant.exec",
            });
            event[key] = value;
            self.emit(event);
        };
        let content = json!({ "chunks": [], "bytes": 0 });
        activity("ACTIVITY_SNAPSHOT", "content", content);
        let mut output = super::event::Output::default();
        let mut stream = answer.into_body().into_data_stream();
        while let Some(bytes) = stream.next().await {
            let lost = |text: String| {
                let status = StatusCode::BAD_GATEWAY;
                Box::new(Problem::new(status.as_u16(), "Bad Gateway", "exec_lost", text, None))
            };
            let bytes = bytes.map_err(|error| lost(error.to_string()))?;
            for (stream, text) in output.take(&bytes) {
                if output.len() <= ACTIVITY_LEN_MAX {
                    let chunk = json!({ "s": stream, "d": text });
                    let patch = json!([
                        { "op": "add", "path": "/chunks/-", "value": chunk },
                        { "op": "replace", "path": "/bytes", "value": output.len() },
                    ]);
                    activity("ACTIVITY_DELTA", "patch", patch);
                }
            }
        }
        let result = output.end();
        let code = result.get("exit_code").cloned().unwrap_or(json!(-1));
        let patch = json!([{ "op": "add", "path": "/exitCode", "value": code }]);
        activity("ACTIVITY_DELTA", "patch", patch);
        Ok(result)
    }

    /// Follows the state until the client has had enough.
    async fn watch(&mut self, arguments: &Map<String, Value>) -> Result<End, Failure> {
        let seconds = arguments.get("maxSeconds").and_then(Value::as_u64).unwrap_or(WATCH_SECONDS);
        let limit = Duration::from_secs(seconds.min(WATCH_SECONDS_MAX));
        let mut over = std::pin::pin!(tokio::time::sleep(limit));
        let cancelled = self.record.cancelled().clone();
        let mut events = 0;
        loop {
            tokio::select! {
                () = &mut over => return Ok(End::Done(json!({ "events": events }))),
                () = cancelled.cancelled() => return Ok(End::Cancelled),
                event = next(&mut self.live) => {
                    events += 1;
                    self.happened(&event, "watch", "");
                }
            }
        }
    }
}

/// Name of what a command is about, for people.
fn subject_of(command: &Command) -> String {
    let name = command.arguments.get("name").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

/// The next event. What was missed shows in the state, which is taken anew with each one.
async fn next(live: &mut Receiver<Arc<Event>>) -> Arc<Event> {
    loop {
        match live.recv().await {
            Ok(event) => return event,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
