//! Who asks, and what they may do.

use std::net::IpAddr;

use metrics::counter;
use tao_model::{Error, Result, Schema, TypeId};
use tao_tls::PeerIdentity;
use tokio::time::Instant;

use crate::grants::Grants;

/// Who asks, as far as it is known, and what they may do by the rules of one time.
#[derive(Debug)]
pub struct Caller {
    name: String,
    is_known: bool,
    grants: Grants,
    /// All that is asked of most callers, so it is looked at first.
    may_all: bool,
    /// Of the rules that gave the grants.
    pub(crate) generation: u64,
    /// After this nobody knows who it is.
    pub(crate) until: Option<Instant>,
}

impl Caller {
    /// Whoever a connection is from: by the first name of its certificate, else by its address, which proves nothing. May do everything.
    pub(crate) fn of_peer(identity: Option<&PeerIdentity>, address: Option<IpAddr>) -> Self {
        let certified = identity.and_then(|identity| identity.dns.first().or(identity.uris.first()));
        let name = match (certified, address) {
            (Some(name), _) => format!("cert:{name}"),
            (None, Some(address)) => format!("address:{}", address.to_canonical()),
            (None, None) => "nobody".to_owned(),
        };
        let is_known = certified.is_some();
        Self { name, is_known, grants: Grants::EVERYTHING, may_all: true, generation: 0, until: None }
    }

    /// Somebody of this name, who has shown a token.
    pub(crate) fn of_token(name: String, until: Instant) -> Self {
        Self { name, is_known: true, grants: Grants::default(), may_all: false, generation: 0, until: Some(until) }
    }

    /// With these grants, by the rules of a generation.
    #[must_use]
    pub(crate) fn granted(self, grants: Grants, generation: u64) -> Self {
        Self { may_all: grants.is_everything(), grants, generation, ..self }
    }

    /// The same for the same caller on all connections: `cert:NAME`, `jwt:ISSUER/SUBJECT`, or `address:IP` of one that proves nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether they have proved who they are.
    pub const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether every type may be read, and written.
    pub const fn may_all(&self) -> bool {
        self.may_all
    }

    /// Whether objects of every type may be read.
    pub const fn reads_all_objects(&self) -> bool {
        self.may_all || self.grants.read_objects.is_all()
    }

    /// Whether objects of every type may be written.
    pub const fn writes_all_objects(&self) -> bool {
        self.may_all || self.grants.write_objects.is_all()
    }

    /// Whether everything may be read.
    pub const fn reads_all(&self) -> bool {
        self.may_all || (self.grants.read_objects.is_all() && self.grants.read_assocs.is_all())
    }

    /// Fails unless associations of a type may be read.
    pub fn may_read_assoc(&self, schema: &Schema, atype: TypeId) -> Result<()> {
        if self.may_all || self.grants.read_assocs.has(atype) {
            return Ok(());
        }
        Err(self.denied(&format!("read associations of type {}", assoc(schema, atype))))
    }

    /// Fails unless associations of a type may be written.
    pub fn may_write_assoc(&self, schema: &Schema, atype: TypeId) -> Result<()> {
        if self.may_all || self.grants.write_assocs.has(atype) {
            return Ok(());
        }
        Err(self.denied(&format!("write associations of type {}", assoc(schema, atype))))
    }

    /// Fails unless objects of a type may be read. The type is told by name, as encoded objects have it.
    pub fn may_read_object(&self, schema: &Schema, otype: &str) -> Result<()> {
        let is_granted = || schema.object_named(otype).is_ok_and(|found| self.grants.read_objects.has(found.number));
        if self.reads_all_objects() || is_granted() {
            return Ok(());
        }
        Err(self.denied(&format!("read objects of type {otype}")))
    }

    /// Fails unless objects of a type may be written.
    pub fn may_write_object(&self, schema: &Schema, otype: TypeId) -> Result<()> {
        if self.may_all || self.grants.write_objects.has(otype) {
            return Ok(());
        }
        let name = schema.object(otype).map_or("unknown", |found| &found.name);
        Err(self.denied(&format!("write objects of type {name}")))
    }

    /// Fails unless something may be written.
    pub fn may_write_something(&self) -> Result<()> {
        if self.may_all || self.grants.writes_something() { Ok(()) } else { Err(self.denied("write anything")) }
    }

    /// Fails unless operators' work may be done.
    pub fn may_administer(&self) -> Result<()> {
        if self.grants.admin { Ok(()) } else { Err(self.denied("administer: it takes a grant of admin")) }
    }

    /// Says who is taken for whom, and what they may not.
    pub fn denied(&self, what: &str) -> Error {
        counter!("access_refusals_total", "reason" => "permission").increment(1);
        Error::PermissionDenied { what: format!("{} may not {what}", self.name) }
    }
}

fn assoc(schema: &Schema, atype: TypeId) -> &str {
    schema.assoc(atype).map_or("unknown", |found| &found.name)
}
