//! The registry of operations is whole: every route of the daemon has an operation, and every
//! operation shows where it says it does.
#![expect(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use volantd::api::operations::{self, Answer, Skin, answer_schema, argument_schema};
use volantd::cli::Cli;

/// Routes as the source has them: `.route("PATH", get(a).post(b))` and `.route_service("PATH", …)`.
fn routes() -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    let mut pending = vec![root.join("api"), root.join("proxy")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                routes_in(code, &mut found);
            }
        }
    }
    found
}

fn routes_in(code: &str, found: &mut BTreeSet<(String, String)>) {
    let code: String = code.split_whitespace().collect();
    for (name, is_service) in [(".route(\"", false), (".route_service(\"", true)] {
        for (at, _) in code.match_indices(name) {
            let rest = &code[at + name.len()..];
            let (path, rest) = rest.split_once('"').unwrap();
            let rest = arguments(rest);
            let mut any = is_service || rest.contains("any(");
            for method in ["get", "post", "put", "patch", "delete"] {
                if rest.contains(&format!("{method}(")) && !rest.contains(&format!("_{method}(")) {
                    found.insert((method.to_ascii_uppercase(), path.to_owned()));
                    any = false;
                }
            }
            if any {
                found.insert(("ANY".to_owned(), path.to_owned()));
            }
        }
    }
}

/// Up to the bracket that closes the call.
fn arguments(rest: &str) -> &str {
    let mut depth = 1;
    let closes = rest.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &rest[..closes.unwrap()]
}

#[test]
fn every_route_has_an_operation_and_every_operation_a_route() {
    let routes = routes();
    assert!(routes.len() > 15, "the routes are not where this test looks for them: {routes:?}");
    let mut described = BTreeSet::new();
    for operation in operations::all() {
        for path in [operation.path].iter().chain(operation.aliases) {
            let method = match operation.answer {
                Answer::Guest => "ANY".to_owned(),
                _ => operation.method.to_string(),
            };
            assert!(described.insert((method, (*path).to_owned())), "{path} is described twice");
        }
    }
    // Their route is made elsewhere (src/api/mcp/fixtures), and no release has it.
    if cfg!(feature = "mcp-fixtures") {
        assert!(described.remove(&("ANY".to_owned(), "/mcp-fixtures".to_owned())));
    }
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(
        missing.is_empty(),
        "routes without an operation, which are refused when called: {missing:?}\n\
         Describe each in a table of src/api/operations/ (see its mod.rs)."
    );
    let gone: Vec<_> = described.difference(&routes).collect();
    assert!(gone.is_empty(), "operations without a route: {gone:?}");
}

#[test]
fn names_are_unique_and_skins_have_reasons() {
    let (mut ids, mut tools) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations::all() {
        assert!(ids.insert(operation.id), "{} is there twice", operation.id);
        match operation.tool {
            Skin::As(name) => assert!(tools.insert(name), "{name} is there twice"),
            Skin::Absent(reason) => assert!(reason.len() > 10, "{}: why no tool?", operation.id),
        }
        if let Skin::Absent(reason) = operation.verb {
            assert!(reason.len() > 10, "{}: why no verb of ctl?", operation.id);
        }
        let is_stream = matches!(operation.answer, Answer::Events | Answer::Socket | Answer::Guest);
        assert!(!is_stream || operation.tool.name().is_none(), "{} cannot be a tool", operation.id);
    }
}

#[test]
fn every_operation_is_in_the_openapi_document() {
    let document = operations::openapi();
    for operation in operations::all() {
        let path = operation.path.replace("{*", "{");
        let method = operation.method.as_str().to_ascii_lowercase();
        let entry = &document["paths"][path][method];
        assert_eq!(entry["operationId"], operation.id);
        assert!(entry["responses"]["default"].is_object());
        let is_long = matches!(operation.answer, Answer::Long(_));
        assert_eq!(entry["responses"]["202"]["headers"]["Location"].is_object(), is_long);
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for (at, start) in text.match_indices("\"$ref\":\"#") {
        let pointer = text[at + start.len()..].split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is referred to and missing");
    }
}

#[test]
fn every_verb_is_one_of_ctl() {
    let cli = Cli::command();
    let ctl = cli.find_subcommand("ctl").unwrap();
    for operation in operations::all() {
        let Some(verb) = operation.verb.name() else { continue };
        let mut command = ctl;
        for word in verb.split(' ') {
            let next = command.find_subcommand(word);
            command = next.unwrap_or_else(|| panic!("{}: no ctl {verb}", operation.id));
        }
    }
}

#[test]
fn tools_have_portable_names_and_whole_schemas() {
    for operation in operations::all() {
        let Some(name) = operation.tool.name() else { continue };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.len() <= 64 && name.bytes().all(plain), "{name}");
        let input = argument_schema(operation);
        let properties = input["properties"].as_object().unwrap();
        // Path, query and body parameters share one object: none may hide another.
        let (query, _) = operations::query_properties(operation);
        let path = operations::path_parameters(operation.path).count();
        let mut alone = operation.clone();
        (alone.path, alone.query) = ("", None);
        let body = argument_schema(&alone)["properties"].as_object().unwrap().len();
        let parts = path + query.len() + body;
        assert_eq!(properties.len(), parts, "{name}: two parameters of one name");
        for schema in [&input, &answer_schema(operation)] {
            let text = serde_json::to_string(schema).unwrap();
            for (at, start) in text.match_indices("\"$ref\":\"#/$defs/") {
                let wanted = text[at + start.len()..].split('"').next().unwrap();
                assert!(schema["$defs"].get(wanted).is_some(), "{name}: {wanted} is missing");
            }
        }
    }
}
