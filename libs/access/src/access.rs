//! What a follower asks of every call: who it is from.

use std::sync::Arc;

use metrics::counter;
use tao_model::{Error, Result, Schema};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::remembered;
use crate::rules::{AccessOptions, FollowsRules, Jwt, Rules};
use crate::token::{self, MAX_TOKEN, Refusal};

/// How a bearer token is announced (RFC 6750).
const BEARER: &[u8] = b"bearer ";

/// Who is let in, and as whom. Cheap to clone; clones share their rules.
#[derive(Debug, Clone, Default)]
pub struct Access {
    rules: Option<Arc<Rules>>,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self::default()
    }

    /// By rules of these files; the error says everything that is wrong with them.
    pub fn load(options: AccessOptions, schema: Arc<Schema>) -> Result<Self, Vec<Problem>> {
        Ok(Self { rules: Some(Arc::new(Rules::load(options, schema)?)) })
    }

    /// Whether everybody may do everything.
    pub const fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// Whether callers may prove who they are by tokens.
    pub fn takes_tokens(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.jwt().is_some())
    }

    /// Takes changed rules for as long as what this returns is held. On a tokio runtime.
    pub fn follow(&self) -> Option<FollowsRules> {
        self.rules.as_ref().map(|rules| rules.follow())
    }

    /// Whether there is what tokens are judged by: keys that are fetched take a moment.
    pub fn has_keys(&self) -> bool {
        self.rules.as_ref().and_then(|rules| rules.jwt()).is_none_or(|jwt| jwt.keys().is_some())
    }

    /// Who a call is from, by its `authorization` where tokens are taken, else by its connection.
    pub fn caller(&self, peer: &Peer, authorization: Option<&[u8]>) -> Result<Arc<Caller>> {
        let Some(rules) = &self.rules else { return Ok(peer.caller()) };
        match (authorization, rules.jwt()) {
            (Some(authorization), Some(jwt)) => of_token(rules, jwt, authorization),
            (None, _) | (_, None) => {
                let caller = peer.caller_by(rules);
                if caller.is_known() { Ok(caller) } else { Err(nobody(rules.jwt().is_some())) }
            }
        }
    }

    /// Whether what was found of a caller still holds.
    pub(crate) fn is_current(&self, caller: &Caller, now: Instant) -> bool {
        let Some(rules) = &self.rules else { return true };
        caller.generation == rules.generation() && caller.until.is_none_or(|until| now < until)
    }

    /// Tells of changes of the rules, where there are any.
    pub(crate) fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.rules.as_ref().map(|rules| rules.changes())
    }

    /// Of the rules; 0 where there are none.
    pub(crate) fn generation(&self) -> u64 {
        self.rules.as_ref().map_or(0, |rules| rules.generation())
    }

    /// Looks at the files now, and not only when it is time.
    pub fn look(&self) {
        self.rules.iter().for_each(|rules| rules.look());
    }
}

fn nobody(takes_tokens: bool) -> Error {
    counter!("access_refusals_total", "reason" => "nobody").increment(1);
    let or = if takes_tokens { " or a bearer token in `authorization`" } else { "" };
    Error::Unauthenticated { what: format!("nobody is known to ask: it takes a client's certificate{or}") }
}

fn refused(refusal: Refusal) -> Error {
    counter!("access_refusals_total", "reason" => refusal.label()).increment(1);
    Error::Unauthenticated { what: format!("the token is refused: {refusal}") }
}

fn of_token(rules: &Rules, jwt: &Jwt, authorization: &[u8]) -> Result<Arc<Caller>> {
    let Some((scheme, token)) = authorization.split_at_checked(BEARER.len()) else {
        return Err(refused(Refusal::Malformed));
    };
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(refused(Refusal::Malformed));
    }
    if token.len() > MAX_TOKEN {
        return Err(refused(Refusal::TooLong));
    }
    let generation = rules.generation();
    if let Some(caller) = remembered::recall(generation, token) {
        if caller.until.is_none_or(|until| Instant::now() < until) {
            return Ok(caller);
        }
        remembered::forget(token);
    }
    let Some(keys) = jwt.keys() else {
        return Err(Error::unavailable("the keys that tokens are signed with could not be fetched yet"));
    };
    let verified = token::verify(&keys, &jwt.expected, token).map_err(|refusal| {
        if refusal == Refusal::UnknownKey {
            jwt.miss();
        }
        refused(refusal)
    })?;
    counter!("access_tokens_verified_total").increment(1);
    let roles = verified.roles.iter().map(|role| format!("role:{role}"));
    let names: Vec<String> = roles.chain([format!("jwt:{}", verified.subject)]).collect();
    let grants = rules.policy().grants(names.iter().map(String::as_str));
    let name = format!("jwt:{}/{}", jwt.expected.issuer, verified.subject);
    let caller = Arc::new(Caller::of_token(name, Instant::now() + verified.lasts).granted(grants, generation));
    remembered::remember(generation, token, caller.clone());
    Ok(caller)
}
