//! Who may reach a VM's ports without the daemon's own token: whoever shows the VM's token, or an
//! address that was signed for a port and has not expired. Both are made from one secret for each
//! VM; a new secret ends all of them at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::model::{VmId, VmName};
use crate::orchestrator::{Error, Handle, Orchestrator};
use crate::store::SECRET_LEN;

/// Longest life of a signed address.
const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Separate what is made from one secret.
const TOKEN_LABEL: &str = "volant-token-v1";
const GUEST_LABEL: &str = "volant-guest-v1";
const ADDRESS_LABEL: &str = "volant-address-v1";

/// A VM's secret, if it has one.
#[derive(Default)]
pub struct Access(Mutex<Option<[u8; SECRET_LEN]>>);

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    fn secret(&self) -> Option<[u8; SECRET_LEN]> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, secret: Option<[u8; SECRET_LEN]>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    fn keyed(&self, message: &str) -> Option<Vec<u8>> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.secret()?).ok()?;
        hmac.update(message.as_bytes());
        Some(hmac.finalize().into_bytes().to_vec())
    }

    fn token(&self) -> Option<String> {
        self.keyed(TOKEN_LABEL).map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    }

    fn guest_token(&self) -> Option<String> {
        self.keyed(GUEST_LABEL).map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    }

    fn signature(&self, port: u16, expires_unix_s: u64) -> Option<String> {
        let message = format!("{ADDRESS_LABEL}\n{port}\n{expires_unix_s}");
        self.keyed(&message).map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn same(expected: Option<String>, shown: &str) -> bool {
    expected.is_some_and(|expected| expected.as_bytes().ct_eq(shown.as_bytes()).into())
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// An address that opens a port without a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAddress {
    /// The whole URL.
    pub url: String,
    /// Until when, in seconds since the Unix epoch.
    pub expires_unix_s: u64,
}

impl Orchestrator {
    /// Reads the secrets that were given out before.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn load_access(&self) -> Result<(), Error> {
        let secrets = self.shared.store.list_access().await?;
        for handle in self.shared.handles() {
            let id: VmId = handle.vm.borrow().id;
            let known = secrets.iter().find(|(vm, _)| *vm == id);
            handle.access.set(known.map(|(_, secret)| *secret));
        }
        Ok(())
    }

    /// A VM's access token, if it was given one.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn access_token(&self, name: &VmName) -> Result<Option<String>, Error> {
        Ok(self.find(name)?.access.token())
    }

    /// Gives a VM a new access token. Earlier ones, and signed addresses, open nothing any more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn access_renew(&self, name: &VmName) -> Result<String, Error> {
        let mut secret = [0; SECRET_LEN];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
            .ok()
            .filter(|read| *read == SECRET_LEN)
            .ok_or(Error::Internal("no random numbers"))?;
        let handle = self.set_access(name, Some(secret)).await?;
        handle.access.token().ok_or(Error::Internal("a token was not made"))
    }

    /// Takes a VM's access token, and with it its signed addresses, away.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn access_revoke(&self, name: &VmName) -> Result<(), Error> {
        self.set_access(name, None).await.map(drop)
    }

    async fn set_access(
        &self,
        name: &VmName,
        secret: Option<[u8; SECRET_LEN]>,
    ) -> Result<std::sync::Arc<Handle>, Error> {
        let handle = self.find(name)?;
        let id = handle.vm.borrow().id;
        self.shared.store.set_access(id, secret).await?;
        handle.access.set(secret);
        Ok(handle)
    }

    /// An address for one port of a VM, good for `life` (at most 30 days). The VM gets an access
    /// token if it has none.
    ///
    /// # Errors
    /// The daemon has no proxy listener.
    pub async fn access_address(
        &self,
        name: &VmName,
        port: u16,
        path: &str,
        life: Duration,
    ) -> Result<SignedAddress, Error> {
        let authority = self.shared.config.proxy_authority.clone().ok_or(Error::NoProxy)?;
        let handle = self.find(name)?;
        if handle.access.secret().is_none() {
            self.access_renew(name).await?;
        }
        let expires_unix_s = unix_s() + life.min(LIFE_MAX).as_secs();
        let signature = handle.access.signature(port, expires_unix_s);
        let signature = signature.ok_or(Error::Internal("a signature was not made"))?;
        let (path, query) = path
            .split_once('?')
            .map_or((path, String::new()), |(path, query)| (path, format!("{query}&")));
        let scheme = self.shared.config.proxy_scheme;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!(
            "{scheme}://{port}-{name}.{authority}{slash}{path}?{query}\
             volant-expires={expires_unix_s}&volant-signature={signature}"
        );
        Ok(SignedAddress { url, expires_unix_s })
    }

    /// Whether a token opens the ports of a VM.
    pub fn token_opens(&self, name: &VmName, token: &str) -> bool {
        self.find(name).is_ok_and(|handle| same(handle.access.token(), token))
    }

    /// The token that opens a VM's processes and files, and nothing else. The VM gets a secret if it
    /// has none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn guest_token(&self, name: &VmName) -> Result<String, Error> {
        if self.find(name)?.access.secret().is_none() {
            self.access_renew(name).await?;
        }
        self.known_guest_token(name).ok_or(Error::Internal("a token was not made"))
    }

    /// The same, if it was given out before.
    pub fn known_guest_token(&self, name: &VmName) -> Option<String> {
        self.find(name).ok()?.access.guest_token()
    }

    /// Whether a token opens the processes and files of a VM.
    pub fn guest_token_opens(&self, name: &VmName, token: &str) -> bool {
        same(self.known_guest_token(name), token)
    }

    /// Whether a signature opens this port of a VM now.
    pub fn signature_opens(
        &self,
        name: &VmName,
        port: u16,
        expires_unix_s: u64,
        signature: &str,
    ) -> bool {
        let Ok(handle) = self.find(name) else { return false };
        unix_s() < expires_unix_s && same(handle.access.signature(port, expires_unix_s), signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_one_secret_opens_one_thing_each() {
        let access = Access::default();
        assert_eq!((access.token(), access.signature(80, 1)), (None, None));
        assert!(!same(access.token(), ""), "no secret opens nothing");
        access.set(Some([7; SECRET_LEN]));
        let (token, signature) = (access.token().unwrap(), access.signature(80, 1).unwrap());
        assert!(
            !same(access.guest_token(), &token)
                && !same(access.token(), &access.guest_token().unwrap())
        );
        assert!(same(access.token(), &token) && !same(access.token(), &signature));
        assert!(!same(access.signature(81, 1), &signature));
        assert!(!same(access.signature(80, 2), &signature));
        assert!(!same(access.signature(80, 1), &token));
        access.set(Some([8; SECRET_LEN]));
        assert!(!same(access.token(), &token) && !same(access.signature(80, 1), &signature));
    }
}
