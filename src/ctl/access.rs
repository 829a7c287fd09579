//! `volantd ctl tokens`, `audit` and `info`.

use hyper::Method;

use crate::cli::{AuditArgs, Output, ScopeWord, TokensCommand};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output;
use crate::ctl::vms::encoded;
use crate::wire::{AuditView, CreateToken, CreatedToken, SystemInfo, TokenView};

const NO_BODY: Option<&()> = None;

/// Verbs on tokens.
///
/// # Errors
/// [`Failure`].
pub async fn tokens(client: &Client, verb: TokensCommand, form: Output) -> Result<u8, Failure> {
    match verb {
        TokensCommand::List => {
            let tokens: Vec<TokenView> =
                client.json(Method::GET, "/api/v1/tokens", NO_BODY).await?;
            if form != Output::Table {
                output::value(form, &tokens)?;
                return Ok(0);
            }
            let rows = tokens.into_iter().map(|token| {
                let ends = token.expires_at.unwrap_or_else(|| "never".to_owned());
                let ends = if token.expired { format!("{ends} (over)") } else { ends };
                let labels = token.labels.iter().map(|(key, value)| format!("{key}={value}"));
                let labels: Vec<_> = labels.collect();
                [token.name, token.scope, labels.join(","), token.created_at, ends]
            });
            output::print_table(["NAME", "SCOPE", "LABELS", "CREATED", "EXPIRES"], rows);
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
            match form {
                // Alone on its line, to be put into a file.
                Output::Table => output::line(&created.secret),
                Output::Json | Output::Yaml => output::value(form, &created)?,
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
pub async fn audit(client: &Client, args: &AuditArgs, form: Output) -> Result<u8, Failure> {
    let before = args.before.map_or_else(String::new, |before| format!("&before={before}"));
    let path = format!("/api/v1/audit?limit={}{before}", args.limit);
    let entries: Vec<AuditView> = client.json(Method::GET, &path, NO_BODY).await?;
    if form != Output::Table {
        output::value(form, &entries)?;
        return Ok(0);
    }
    let rows = entries.into_iter().map(|entry| {
        let who = format!("{} ({})", entry.principal, entry.peer);
        let status = entry.status.to_string();
        [entry.id.to_string(), entry.timestamp, who, entry.operation, entry.target, status]
    });
    output::print_table(["ID", "TIME", "WHO", "OPERATION", "TARGET", "STATUS"], rows);
    Ok(0)
}

/// About the daemon.
///
/// # Errors
/// [`Failure`].
pub async fn info(client: &Client, form: Output) -> Result<u8, Failure> {
    let info: SystemInfo = client.json(Method::GET, "/api/v1/system/info", NO_BODY).await?;
    if form != Output::Table {
        output::value(form, &info)?;
        return Ok(0);
    }
    output::line(&format!("volantd {}: {}", info.version, info.status));
    for (status, count) in &info.vms {
        output::line(&format!("{status:<12} {count}"));
    }
    Ok(0)
}
