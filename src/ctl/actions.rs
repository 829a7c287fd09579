//! `ctl vms action` and `ctl plugins action`: the answer's body goes to stdout as it comes.

use std::path::Path;

use hyper::Method;

use crate::cli::{PayloadArgs, PluginActionArgs, VmActionArgs};
use crate::ctl::client::{Client, Failure, print, whole};
use crate::ctl::output::Printer;
use crate::ctl::source;
use crate::ctl::vms::{encoded, path};

/// Bytes of a payload that are read into memory.
const PAYLOAD_LEN_MAX: usize = 256 * 1024 * 1024;
/// The daemon names the VM that has answered; without it the answer is the daemon's own.
const VM_HEADER: &str = "x-volant-vm";

/// Calls an action of a VM.
///
/// # Errors
/// [`Failure`].
pub async fn of_vm(client: &Client, args: VmActionArgs, out: &Printer) -> Result<u8, Failure> {
    let rest = format!("/actions/{}/{}", encoded(&args.plugin), encoded(&args.action));
    call(client, &path(&args.name, &rest), args.payload, out).await
}

/// Calls an action of any ready VM of a plugin.
///
/// # Errors
/// [`Failure`].
pub async fn of_any(client: &Client, args: PluginActionArgs, out: &Printer) -> Result<u8, Failure> {
    let (plugin, action) = (encoded(&args.plugin), encoded(&args.action));
    call(client, &format!("/api/v1/plugins/{plugin}/actions/{action}"), args.payload, out).await
}

async fn call(
    client: &Client,
    path: &str,
    payload: PayloadArgs,
    out: &Printer,
) -> Result<u8, Failure> {
    let (body, kind) = body(payload)?;
    let body = whole(body);
    let answer = client.exchange(Method::POST, path, body, kind.as_deref(), "*/*").await?;
    if !answer.headers().contains_key(VM_HEADER) {
        return Err(Client::refusal(answer).await);
    }
    let status = answer.status();
    print(answer.into_body(), out).await?;
    if status.is_success() {
        return Ok(0);
    }
    Err(Failure::local(format!("the action answered {status}")))
}

/// What is sent, and its media type if there is anything.
///
/// # Errors
/// It is neither JSON nor a file.
pub fn body(payload: PayloadArgs) -> Result<(Vec<u8>, Option<String>), Failure> {
    let bytes = payload.payload.as_deref().map(read).transpose()?;
    let kind = bytes.as_deref().map(|bytes| {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        let usual = if is_json { "application/json" } else { "application/octet-stream" };
        payload.content_type.unwrap_or_else(|| usual.to_owned())
    });
    Ok((bytes.unwrap_or_default(), kind))
}

/// JSON as it stands, else a file.
fn read(payload: &str) -> Result<Vec<u8>, Failure> {
    if payload == "-" {
        return source::read("-", PAYLOAD_LEN_MAX);
    }
    if let Some(path) = payload.strip_prefix('@') {
        return source::read(path, PAYLOAD_LEN_MAX);
    }
    if serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok() {
        return Ok(payload.as_bytes().to_vec());
    }
    if Path::new(payload).exists() {
        return source::read(payload, PAYLOAD_LEN_MAX);
    }
    let text = format!("--payload: neither JSON nor a file: {payload}");
    Err(Failure { exit_code: 2, ..Failure::local(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(read("{\"a\": 1}").unwrap(), b"{\"a\": 1}");
        assert_eq!(read(path).unwrap(), b"from a file");
        assert_eq!(read(&format!("@{path}")).unwrap(), b"from a file");
        for wrong in ["{a}", "@/no/such", ""] {
            assert_eq!(read(wrong).unwrap_err().exit_code, 2, "{wrong:?}");
        }
    }
}
