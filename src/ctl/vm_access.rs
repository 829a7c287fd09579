//! `vms access` and `vms url`.

use hyper::Method;

use crate::cli::{AccessArgs, UrlArgs};
use crate::ctl::client::{Client, Failure};
use crate::ctl::output::Printer;
use crate::ctl::vms::path;
use crate::wire::{AccessView, SignBody, SignedView};

const NO_BODY: Option<&()> = None;

/// Shows a VM's token, making one if there is none.
///
/// # Errors
/// [`Failure`].
pub async fn token(client: &Client, args: &AccessArgs, out: &Printer) -> Result<(), Failure> {
    let target = path(&args.name, "/access");
    if args.revoke {
        return client.send(Method::DELETE, &target, None, "*/*").await.map(drop);
    }
    let mut access: AccessView = client.json(Method::GET, &target, NO_BODY).await?;
    if args.renew || access.token.is_none() {
        access = client.json(Method::POST, &target, NO_BODY).await?;
    }
    out.line(&access.token.unwrap_or_default())
}

/// Prints a signed address.
///
/// # Errors
/// [`Failure`].
pub async fn url(client: &Client, args: UrlArgs, out: &Printer) -> Result<(), Failure> {
    let body = SignBody { port: args.port, path: args.path, expires_in_s: args.expires };
    let target = path(&args.name, "/access/url");
    let signed: SignedView = client.json(Method::POST, &target, Some(&body)).await?;
    if out.is_table() { out.line(&signed.url) } else { out.value(&signed) }
}
