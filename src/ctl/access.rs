//! `volantd ctl tokens`, `audit` and `info`.

use hyper::Method;

use crate::cli::{AuditArgs, ScopeWord, TokensCommand};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::vms::encoded;
use crate::wire::{AuditView, CreateToken, CreatedToken, SystemInfo, TokenView};

const NO_BODY: Option<&()> = None;

/// Verbs on tokens.
///
/// # Errors
/// [`Failure`].
pub async fn tokens(client: &Client, verb: TokensCommand, out: &Printer) -> Result<u8, Failure> {
    match verb {
        TokensCommand::List => {
            let tokens: Vec<TokenView> =
                client.json(Method::GET, "/api/v1/tokens", NO_BODY).await?;
            out.list(&tokens)?;
        }
        TokensCommand::Create { name, scope, labels, expires } => {
            let scope = match scope {
                ScopeWord::Read => "read",
                ScopeWord::Operate => "operate",
                ScopeWord::Admin => "admin",
            };
            let scope = scope.to_owned();
            let labels = labels.into_iter().collect();
            let body = CreateToken { name, scope, labels, expires_in_seconds: expires };
            let created: CreatedToken =
                client.json(Method::POST, "/api/v1/tokens", Some(&body)).await?;
            if out.is_table() {
                // Alone on its line, to be put into a file.
                out.line(&created.secret)?;
            } else {
                out.value(&created)?;
            }
        }
        TokensCommand::Revoke { name } => {
            let path = format!("/api/v1/tokens/{}", encoded(&name));
            client.send(Method::DELETE, &path, None, "*/*").await?;
        }
    }
    Ok(0)
}

/// The audit log.
///
/// # Errors
/// [`Failure`].
pub async fn audit(client: &Client, args: &AuditArgs, out: &Printer) -> Result<u8, Failure> {
    let before = args.before.map_or_else(String::new, |before| format!("&before={before}"));
    let path = format!("/api/v1/audit?limit={}{before}", args.limit);
    let entries: Vec<AuditView> = client.json(Method::GET, &path, NO_BODY).await?;
    out.list(&entries)?;
    Ok(0)
}

/// About the daemon.
///
/// # Errors
/// [`Failure`].
pub async fn info(client: &Client, out: &Printer) -> Result<u8, Failure> {
    let info: SystemInfo = client.json(Method::GET, "/api/v1/system/info", NO_BODY).await?;
    if !out.is_table() {
        out.value(&info)?;
        return Ok(0);
    }
    out.line(&format!("volantd {}: {}", info.version, info.status))?;
    for (status, count) in &info.vms {
        out.line(&format!("{status:<12} {count}"))?;
    }
    Ok(0)
}
