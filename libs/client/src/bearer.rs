//! The token that says who calls.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tao_rpc::{Authorize, Bearer};
use tao_tls::{Contents, FollowsFiles, Reloaded, TlsError, Told};

const TOLD: Told = Told { what: "token", counter: "tao_client_token_reloads_total" };

/// Why a token can't be had. It is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(String);

impl From<TlsError> for TokenError {
    fn from(error: TlsError) -> Self {
        Self(error.to_string())
    }
}

/// A bearer token, for [`ClientOptions::bearer`](crate::ClientOptions::bearer). Cheap to clone. Over TLS only, where strangers may listen.
#[derive(Clone)]
pub struct BearerToken(Source);

#[derive(Clone)]
enum Source {
    Text(Bearer),
    File(Arc<Reloaded<Bearer, TokenError>>),
}

impl BearerToken {
    /// One for good.
    pub fn text(token: &str) -> Result<Self, TokenError> {
        bearer(token).map(Source::Text).map(Self).ok_or_else(|| TokenError("the token is not plain text".to_owned()))
    }

    /// The one in a file, which is read again every two seconds: whoever renews it replaces the file.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self, TokenError> {
        let path = path.into();
        let read = path.clone();
        let make = move |contents: &Contents| {
            let text = std::str::from_utf8(contents.of(&read)).ok().and_then(bearer);
            text.ok_or_else(|| vec![TokenError(format!("{} has no token", read.display()))])
        };
        let loaded = Reloaded::load(TOLD, vec![path], make);
        let problems = |problems: Vec<TokenError>| {
            TokenError(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        loaded.map(Source::File).map(Self).map_err(problems)
    }

    /// Takes a changed file for as long as what this returns is held. On a tokio runtime.
    pub(crate) fn follow(&self) -> Option<FollowsFiles> {
        match &self.0 {
            Source::Text(_) => None,
            Source::File(file) => Some(file.follow()),
        }
    }

    /// Takes another that the file may have by now; whether it has a file at all, so that what was refused is worth a second attempt.
    pub(crate) fn renews(&self) -> bool {
        match &self.0 {
            Source::Text(_) => false,
            Source::File(file) => {
                file.look();
                true
            }
        }
    }
}

impl Authorize for BearerToken {
    fn bearer(&self) -> Bearer {
        match &self.0 {
            Source::Text(text) => text.clone(),
            Source::File(file) => file.now().as_ref().clone(),
        }
    }
}

/// Signed tokens can't be guessed bit by bit, so HTTP/2 may keep them in its table of headers: it costs a request one byte then.
fn bearer(token: &str) -> Option<Bearer> {
    let token = token.trim();
    let is_plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| format!("Bearer {token}").parse().ok()).flatten()
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_never_shown() {
        let token = BearerToken::text(" a.b.c\n").unwrap();
        assert_eq!(token.bearer(), "Bearer a.b.c");
        assert!(!format!("{token:?}").contains("a.b.c"));
        for wrong in ["", "a b", "a\nb", "ä"] {
            assert!(BearerToken::text(wrong).is_err(), "{wrong}");
        }
        let error = BearerToken::file("/does/not/exist").unwrap_err();
        assert!(error.to_string().starts_with("/does/not/exist can't be read"), "{error}");
    }
}
