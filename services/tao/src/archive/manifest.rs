//! What an export consists of. Written last: where there is none, there is no export.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tao_model::{ClusterId, IdLayout, LogId, Position, Schema, ShardSet};

use super::durable::{self, failed};
use super::plan::PartPlan;
use crate::commands::Failure;

/// The version of the format.
pub const VERSION: u32 = 1;
const FILE: &str = "manifest.json";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of the format.
    pub version: u32,
    /// The release that has written it.
    pub tao: String,
    /// When, RFC 3339.
    pub written: String,
    /// The cluster, in hexadecimal.
    pub cluster: String,
    /// How its ids are split.
    pub layout: Layout,
    /// How rows are encoded.
    pub format: RowFormat,
    /// The types, for those that rows name by number.
    pub schema: Types,
    /// Each log, and where it was: together, one moment.
    pub logs: Vec<LogPart>,
    /// The files.
    pub parts: Vec<Part>,
}

/// How rows are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// JSON, a row a line.
    Jsonl,
    /// Length-delimited tao.internal.v1.Change, gzip.
    Compact,
}

/// Bits of an id, and how many shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    time_bits: u8,
    shard_bits: u8,
    sequence_bits: u8,
    shards: u32,
}

/// Names and numbers of types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Types {
    /// Of objects.
    pub objects: Vec<Type>,
    /// Of associations.
    pub associations: Vec<Type>,
}

/// A type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Type {
    /// In the API.
    pub name: String,
    /// In storage.
    pub number: u32,
}

/// A log, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPart {
    /// Its number.
    pub log: u32,
    /// Its shards, as a topology writes them.
    pub shards: String,
    /// Where it was.
    pub epoch: u64,
    /// See above.
    pub lsn: u64,
    /// By other log, the last of its intents that was done: log, epoch, number.
    pub intents_done: Vec<(u32, u64, u64)>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What is in it.
    #[serde(flatten)]
    pub plan: PartPlan,
    /// Rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Of the file as it is, in hexadecimal.
    pub sha256: String,
}

impl Layout {
    /// Of a cluster.
    pub fn of(layout: IdLayout) -> Self {
        let (time_bits, shard_bits, sequence_bits) = layout.bits();
        Self { time_bits, shard_bits, sequence_bits, shards: layout.shards() }
    }

    /// As the model has it.
    pub fn to_model(self) -> Result<IdLayout, Failure> {
        let layout = IdLayout::new(self.time_bits, self.shard_bits, self.sequence_bits, self.shards);
        layout.map_err(|problem| Failure::bad_input(format!("{FILE}: {problem}")))
    }
}

impl Types {
    /// Of a schema.
    pub fn of(schema: &Schema) -> Self {
        let one = |name: &str, number: u32| Type { name: name.to_owned(), number };
        Self {
            objects: schema.objects().into_iter().map(|t| one(&t.name, t.number.0)).collect(),
            associations: schema.assocs().into_iter().map(|t| one(&t.name, t.number.0)).collect(),
        }
    }
}

impl LogPart {
    /// Its number.
    pub const fn id(&self) -> LogId {
        LogId(self.log)
    }

    /// Where it was.
    pub const fn position(&self) -> Position {
        Position::new(self.epoch, self.lsn)
    }

    /// Its shards.
    pub fn shard_set(&self) -> Result<ShardSet, Failure> {
        self.shards.parse().map_err(|problem: String| Failure::bad_input(format!("{FILE}: {problem}")))
    }
}

impl Manifest {
    /// Whether a folder has one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Reads a folder's.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::bad_input(format!("{} holds no complete export: it has no {FILE}", folder.display()))
            }
            _ => failed(&path, error),
        })?;
        let unreadable = |error| Failure::bad_input(format!("{} can't be read: {error}", path.display()));
        let manifest: Self = serde_json::from_slice(&text).map_err(unreadable)?;
        if manifest.version != VERSION {
            let (of, own) = (manifest.version, VERSION);
            return Err(Failure::bad_input(format!("{} is of version {of}, and this tao reads {own}", path.display())));
        }
        // Files are named, not led to.
        if let Some(part) = manifest.parts.iter().find(|part| part.plan.file.contains(['/', '\\'])) {
            return Err(Failure::bad_input(format!(
                "{} names {:?}, which is no file beside it",
                path.display(),
                part.plan.file
            )));
        }
        Ok(manifest)
    }

    /// Writes it, durably.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(self).map_err(Failure::other)?;
        text.push(b'\n');
        durable::write(&folder.join(FILE), &text)
    }

    /// The cluster.
    pub fn cluster_id(&self) -> Result<ClusterId, Failure> {
        let wrong = || Failure::bad_input(format!("{FILE}: {:?} is no cluster", self.cluster));
        let bytes = super::record::unhex(&self.cluster).ok_or_else(wrong)?;
        Ok(ClusterId(bytes.try_into().map_err(|_| wrong())?))
    }

    /// Rows of one kind in all parts.
    pub fn rows(&self, kind: super::plan::PartKind) -> u64 {
        self.parts.iter().filter(|part| part.plan.kind == kind).map(|part| part.rows).sum()
    }
}
