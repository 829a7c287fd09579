//! `ctl api`: any request, its answer as it comes.

use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};

use crate::cli::ApiArgs;
use crate::ctl::client::{Client, Failure, exit_code_of, print, whole};
use crate::ctl::output::Printer;
use crate::ctl::source;

/// Bytes of a body that are read into memory.
const BODY_LEN_MAX: usize = 256 * 1024 * 1024;

/// Sends it; the answer's body goes to stdout, whatever its status.
///
/// # Errors
/// The request is none, nobody answers, or the answer is no success.
pub async fn run(client: &Client, args: &ApiArgs, out: &Printer) -> Result<u8, Failure> {
    let wrong = |text: String| Failure { exit_code: 2, ..Failure::local(text) };
    let method = Method::from_bytes(args.method.to_ascii_uppercase().as_bytes());
    let method = method.map_err(|_| wrong(format!("{:?} is no method", args.method)))?;
    let path = match args.path.starts_with('/') {
        true => args.path.clone(),
        false => format!("/api/v1/{}", args.path),
    };
    let mut request = Request::builder().method(method).uri(path).header("accept", "*/*");
    let mut has_kind = false;
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            return Err(wrong(format!("{header:?} is no header: write it as NAME:VALUE")));
        };
        has_kind |= name.eq_ignore_ascii_case(CONTENT_TYPE.as_str());
        request = request.header(name.trim(), value.trim());
    }
    let body = match args.data.as_deref() {
        None => Vec::new(),
        Some(text) => {
            if !has_kind {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            match text.strip_prefix('@') {
                Some(file) => source::read(file, BODY_LEN_MAX)?,
                None if text == "-" => source::read("-", BODY_LEN_MAX)?,
                None => text.as_bytes().to_vec(),
            }
        }
    };
    let answer = client.send_request(request, whole(body)).await?;
    let status = answer.status();
    print(answer.into_body(), out).await?;
    if status.is_success() {
        return Ok(0);
    }
    let failure = Failure::local(format!("the answer is {status}"));
    Err(Failure { exit_code: exit_code_of(status.as_u16()), ..failure })
}
