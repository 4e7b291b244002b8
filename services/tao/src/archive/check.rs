//! Whether an export's files are those that its manifest names.

use std::path::Path;

use tao_model::Schema;

use super::durable::failed;
use super::manifest::Manifest;
use super::part::{PartReader, checksum};
use super::plan::PartKind;
use super::record::Decoder;
use crate::commands::Failure;

/// Compares every file's checksum.
pub fn checksums(folder: &Path, manifest: &Manifest) -> Result<(), Failure> {
    for part in &manifest.parts {
        let path = part.plan.path(folder);
        let found = checksum(&path)?;
        if found != (part.sha256.clone(), part.bytes) {
            let (sha256, bytes) = found;
            let what = format!(
                "is damaged: {bytes} bytes with SHA-256 {sha256}, and {} with {} were written",
                part.bytes, part.sha256
            );
            return Err(failed(&path, what));
        }
    }
    Ok(())
}

/// Reads every row.
pub fn rows(folder: &Path, manifest: &Manifest, schema: &Schema) -> Result<(), Failure> {
    let decoder = Decoder::new(schema, &manifest.schema).map_err(Failure::bad_input)?;
    for part in &manifest.parts {
        let mut reader = PartReader::open(folder, &part.plan, manifest.format)?;
        let mut rows = 0;
        if part.plan.kind == PartKind::Intents {
            rows = reader.intents()?.len();
        } else {
            loop {
                let page = reader.rows(&decoder, 1_000)?;
                rows += page.len();
                if page.is_empty() {
                    break;
                }
            }
        }
        if rows as u64 != part.rows {
            return Err(failed(&part.plan.path(folder), format!("has {rows} rows, and {} were written", part.rows)));
        }
    }
    Ok(())
}
