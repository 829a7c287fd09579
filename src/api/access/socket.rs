//! Pages cannot give a WebSocket an `Authorization` header. Their token comes as Kubernetes' does: as one
//! of the subprotocols that they offer, which is taken away before anybody else reads them.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Before the token in base64url.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token among the subprotocols, which it leaves: neither a handler nor a guest gets to see it.
pub fn take_token(headers: &mut HeaderMap) -> Option<String> {
    let offered: Vec<String> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_owned()))
        .collect();
    let token = offered.iter().find_map(|name| name.strip_prefix(PREFIX))?;
    let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let kept: Vec<&str> =
        offered.iter().map(String::as_str).filter(|name| !name.starts_with(PREFIX)).collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if !kept.is_empty()
        && let Ok(kept) = HeaderValue::from_str(&kept.join(", "))
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept);
    }
    // One that cannot be read is shown all the same: it is nobody's.
    Some(token.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_the_subprotocols() {
        let check = |offered: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in offered {
                let value = HeaderValue::from_str(value).unwrap();
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
            }
            let token = take_token(&mut headers);
            let left = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
            (token, left.map(|value| value.to_str().unwrap().to_owned()))
        };
        let some = |text: &str| Some(text.to_owned());
        let secret = format!("{PREFIX}c2VjcmV0");
        assert_eq!(check(&[]), (None, None));
        assert_eq!(check(&["v5, v4"]), (None, some("v5, v4")));
        assert_eq!(check(&[&format!("v5, {secret}, v4")]), (some("secret"), some("v5, v4")));
        assert_eq!(check(&["v5", &secret]), (some("secret"), some("v5")));
        assert_eq!(check(&[&secret]), (some("secret"), None));
        let unreadable = format!("{PREFIX}!, {secret}");
        assert_eq!(check(&[&unreadable]), (some(""), None), "no other one is looked for");
    }
}
