//! Cursors: where the listing of a list goes on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::bytes_reader::Reader;
use crate::error::{Error, Result};
use crate::graph::{EdgeKey, TypeId};
use crate::id::ObjectId;
use crate::limits::MAX_CURSOR;

const VERSION: u8 = 1;

/// The last edge that was listed, and of which list. Opaque text to its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The list's object.
    pub id1: ObjectId,
    /// The list's association type.
    pub atype: TypeId,
    /// The last edge that was listed.
    pub after: EdgeKey,
}

impl Cursor {
    /// As text.
    pub fn encode(&self) -> String {
        let mut out = Vec::with_capacity(25);
        out.push(VERSION);
        out.extend(self.id1.get().to_be_bytes());
        out.extend(self.atype.0.to_be_bytes());
        out.extend(self.after.time.to_be_bytes());
        out.extend(self.after.id2.get().to_be_bytes());
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Reads a cursor that a caller gave for the list of `id1` and `atype`.
    pub fn decode(text: &str, id1: ObjectId, atype: TypeId) -> Result<Self> {
        let malformed = || Error::invalid("cursor", "not a cursor: pass `next_cursor` as an answer gave it, or none");
        if text.len() > MAX_CURSOR {
            return Err(malformed());
        }
        let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
        let mut reader = Reader(&raw);
        let cursor = Self::read(&mut reader).filter(|_| reader.is_empty()).ok_or_else(malformed)?;
        if cursor.id1 == id1 && cursor.atype == atype {
            Ok(cursor)
        } else {
            Err(Error::invalid(
                "cursor",
                "of another list: a cursor goes on with the id1 and type that it was made for",
            ))
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u8()? != VERSION {
            return None;
        }
        let id1 = ObjectId::new(reader.u64()? as i64)?;
        let atype = TypeId(reader.u32()?);
        let time = reader.u32()?;
        Some(Self { id1, atype, after: EdgeKey { time, id2: ObjectId::new(reader.u64()? as i64)? } })
    }
}
