//! What somebody may do, by types.

use std::collections::BTreeSet;

use tao_model::TypeId;

/// Some types, or all that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Types {
    /// Also those that a schema gets later.
    All,
    /// These.
    These(BTreeSet<TypeId>),
}

impl Default for Types {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Types {
    /// Whether a type is one of them.
    pub fn has(&self, number: TypeId) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains(&number),
        }
    }

    /// Whether it is all of them.
    pub const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::These(these) if these.is_empty())
    }

    pub(crate) fn add(&mut self, number: TypeId) {
        if let Self::These(these) = self {
            these.insert(number);
        }
    }

    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::These(these), Self::These(more)) => these.extend(more),
        }
    }
}

/// What somebody may do: nothing, unless it is said. Object and association types are numbered apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Object types that may be read.
    pub read_objects: Types,
    /// Association types that may be read.
    pub read_assocs: Types,
    /// Object types that may be written, and read.
    pub write_objects: Types,
    /// Association types that may be written, and read.
    pub write_assocs: Types,
    /// Whether the operators' part is open, and all else.
    pub admin: bool,
}

impl Grants {
    /// Everything.
    pub const EVERYTHING: Self = Self {
        read_objects: Types::All,
        read_assocs: Types::All,
        write_objects: Types::All,
        write_assocs: Types::All,
        admin: true,
    };

    /// Whether all types may be read and written.
    pub(crate) const fn is_everything(&self) -> bool {
        self.read_objects.is_all()
            && self.read_assocs.is_all()
            && self.write_objects.is_all()
            && self.write_assocs.is_all()
    }

    /// Whether anything at all may be written.
    pub(crate) fn writes_something(&self) -> bool {
        !self.write_objects.is_empty() || !self.write_assocs.is_empty()
    }

    /// These and those.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.read_objects.merge(&other.read_objects);
        self.read_assocs.merge(&other.read_assocs);
        self.write_objects.merge(&other.write_objects);
        self.write_assocs.merge(&other.write_assocs);
        self.admin |= other.admin;
    }

    /// With what the grants imply: who writes a type may read it, and an admin may do everything.
    #[must_use]
    pub(crate) fn implied(mut self) -> Self {
        if self.admin {
            return Self::EVERYTHING;
        }
        self.read_objects.merge(&self.write_objects);
        self.read_assocs.merge(&self.write_assocs);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_implies_reading_and_admin_everything() {
        let mut grants = Grants::default();
        assert!(!grants.writes_something() && !grants.is_everything());
        grants.write_assocs.add(TypeId(3));
        let grants = grants.implied();
        assert!(grants.read_assocs.has(TypeId(3)) && !grants.read_assocs.has(TypeId(4)));
        assert!(!grants.read_objects.has(TypeId(3)), "objects and associations are numbered apart");
        let admin = Grants { admin: true, ..Grants::default() };
        assert_eq!(admin.implied(), Grants::EVERYTHING);
        let mut merged = grants.clone();
        merged.merge(&Grants { read_objects: Types::All, ..Grants::default() });
        assert!(merged.read_objects.has(TypeId(77)) && merged.read_assocs.has(TypeId(3)) && !merged.is_everything());
        assert!(Grants::EVERYTHING.is_everything());
    }
}
