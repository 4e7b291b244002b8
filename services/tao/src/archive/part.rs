//! The file of a part: written under another name until it is whole, with its checksum made on the way; read row by row.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tao_model::{Position, ShardId};
use tao_store::StoredIntent;
use tao_store::direct::GraphRow;

use super::durable::{self, failed};
use super::manifest::{Part, RowFormat};
use super::plan::{PartKind, PartPlan};
use super::record::{Decoder, Encoder, hex, unhex};
use crate::commands::Failure;

const BUFFER: usize = 1 << 16;
/// Bytes of an encoded row, at the most: far above what data may have.
const MAX_ROW: usize = 16 << 20;

/// What is written, and its checksum.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

enum Out {
    Plain(Hashed),
    Gzip(GzEncoder<Hashed>),
}

/// Writes a part.
pub struct PartWriter<'a> {
    out: Out,
    path: PathBuf,
    plan: PartPlan,
    rows: u64,
    encoder: Encoder<'a>,
    format: RowFormat,
}

impl<'a> PartWriter<'a> {
    /// Begins one; what an earlier attempt has left of it is gone.
    pub fn create(folder: &Path, plan: PartPlan, format: RowFormat, encoder: Encoder<'a>) -> Result<Self, Failure> {
        let path = plan.path(folder);
        let file = File::create(durable::unfinished(&path)).map_err(|error| failed(&path, error))?;
        let hashed = Hashed { file: BufWriter::with_capacity(BUFFER, file), hash: Sha256::new(), bytes: 0 };
        let out =
            if plan.is_packed() { Out::Gzip(GzEncoder::new(hashed, Compression::fast())) } else { Out::Plain(hashed) };
        Ok(Self { out, path, plan, rows: 0, encoder, format })
    }

    /// Adds a row.
    pub fn row(&mut self, row: &GraphRow) -> Result<(), Failure> {
        let encoded = match self.format {
            RowFormat::Jsonl => self.encoder.json(row).map(|mut line| {
                line.push(b'\n');
                line
            }),
            RowFormat::Compact => self.encoder.compact(row),
        };
        let encoded = encoded.map_err(|why| Failure::other(format!("{why}: `tao verify` tells more")))?;
        self.add(&encoded)
    }

    /// Adds what a write had left to do.
    pub fn intent(&mut self, intent: &StoredIntent) -> Result<(), Failure> {
        let Position { epoch, lsn: number } = intent.position;
        let line = IntentLine { epoch, number, shard: intent.shard.0, payload: hex(&intent.payload) };
        let mut line = serde_json::to_vec(&line).map_err(Failure::other)?;
        line.push(b'\n');
        self.add(&line)
    }

    fn add(&mut self, encoded: &[u8]) -> Result<(), Failure> {
        self.rows += 1;
        let written = match &mut self.out {
            Out::Plain(out) => out.write_all(encoded),
            Out::Gzip(out) => out.write_all(encoded),
        };
        written.map_err(|error| failed(&self.path, error))
    }

    /// Ends it: from here on it is there, whatever happens.
    pub fn finish(self) -> Result<Part, Failure> {
        let Self { out, path, plan, rows, .. } = self;
        let end = || {
            let Hashed { file, hash, bytes } = match out {
                Out::Plain(out) => out,
                Out::Gzip(out) => out.finish()?,
            };
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            durable::finish(&path)?;
            Ok((hex(&hash.finalize()), bytes))
        };
        let (sha256, bytes) = end().map_err(|error: io::Error| failed(&path, error))?;
        Ok(Part { plan, rows, bytes, sha256 })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentLine {
    epoch: u64,
    number: u64,
    shard: u32,
    payload: String,
}

/// Reads a part.
pub struct PartReader {
    input: Box<dyn BufRead + Send>,
    path: PathBuf,
    kind: PartKind,
    format: RowFormat,
    row: u64,
    line: Vec<u8>,
}

impl PartReader {
    /// Opens one.
    pub fn open(folder: &Path, plan: &PartPlan, format: RowFormat) -> Result<Self, Failure> {
        let path = plan.path(folder);
        let file = BufReader::with_capacity(BUFFER, File::open(&path).map_err(|error| failed(&path, error))?);
        let input: Box<dyn BufRead + Send> = if plan.is_packed() {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self { input, path, kind: plan.kind, format, row: 0, line: Vec::new() })
    }

    /// Passes over so many rows.
    pub fn skip(&mut self, rows: u64) -> Result<(), Failure> {
        for _ in 0..rows {
            if self.raw()?.is_none() {
                return Err(failed(&self.path, "has fewer rows than were read of it before"));
            }
        }
        Ok(())
    }

    /// The next rows, at most so many; none at the end.
    pub fn rows(&mut self, decoder: &Decoder<'_>, limit: usize) -> Result<Vec<GraphRow>, Failure> {
        let mut rows = Vec::with_capacity(limit);
        while rows.len() < limit {
            let Some(raw) = self.raw()? else { break };
            let row = match self.format {
                RowFormat::Jsonl => decoder.json(self.kind, &raw),
                RowFormat::Compact => decoder.compact(raw),
            };
            rows.push(row.map_err(|why| failed(&self.path, format!("row {}: {why}", self.row)))?);
        }
        Ok(rows)
    }

    /// All intents of a part of them.
    pub fn intents(mut self) -> Result<Vec<StoredIntent>, Failure> {
        // Whatever rows are encoded as.
        self.format = RowFormat::Jsonl;
        let mut intents = Vec::new();
        while let Some(raw) = self.raw()? {
            let line: IntentLine = serde_json::from_slice(&raw).map_err(|error| failed(&self.path, error))?;
            let payload = unhex(&line.payload).ok_or_else(|| failed(&self.path, "a payload is not hexadecimal"))?;
            let (position, shard) = (Position::new(line.epoch, line.number), ShardId(line.shard));
            intents.push(StoredIntent { position, shard, payload: payload.into() });
        }
        Ok(intents)
    }

    fn raw(&mut self) -> Result<Option<Bytes>, Failure> {
        let read = match self.format {
            RowFormat::Jsonl => self.json_line(),
            RowFormat::Compact => self.message(),
        };
        let read = read.map_err(|error| failed(&self.path, format!("after row {}: {error}", self.row)))?;
        self.row += u64::from(read.is_some());
        Ok(read)
    }

    fn json_line(&mut self) -> io::Result<Option<Bytes>> {
        self.line.clear();
        if self.input.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        Ok(Some(Bytes::copy_from_slice(self.line.trim_ascii_end())))
    }

    fn message(&mut self) -> io::Result<Option<Bytes>> {
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let mut byte = [0];
            if self.input.read(&mut byte)? == 0 {
                return if shift == 0 { Ok(None) } else { Err(cut()) };
            }
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] < 0x80 {
                break;
            }
            if shift > 28 {
                return Err(io::Error::other("a length that is none"));
            }
        }
        if len > MAX_ROW {
            return Err(io::Error::other(format!("a row of {len} bytes")));
        }
        let mut message = vec![0; len];
        self.input.read_exact(&mut message)?;
        Ok(Some(message.into()))
    }
}

/// A file's checksum and size.
pub fn checksum(path: &Path) -> Result<(String, u64), Failure> {
    let read = || {
        let (mut file, mut hash, mut buffer, mut bytes) = (File::open(path)?, Sha256::new(), vec![0; BUFFER], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((hex(&hash.finalize()), bytes)),
                read => {
                    hash.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    };
    read().map_err(|error: io::Error| failed(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::Types;
    use tao_harness::TempDir;
    use tao_model::{AssocRef, Object, ObjectId, Schema, TypeId};
    use tao_store::direct::EdgeRow;

    fn rows() -> Vec<GraphRow> {
        let id = |n| ObjectId::new(n).unwrap();
        let edge = |n| {
            let at = AssocRef { id1: id(n), atype: TypeId(1), id2: id(n + 1) };
            GraphRow::Edge(EdgeRow { at, time: n as u32, data: Bytes::new() })
        };
        (1..300).map(edge).collect()
    }

    #[test]
    fn a_part_is_there_when_it_is_whole_and_is_read_from_any_row_on() {
        let (folder, schema) = (TempDir::new().unwrap(), Schema::social());
        let decoder = Decoder::new(&schema, &Types::of(&schema)).unwrap();
        for (format, suffix) in
            [(RowFormat::Jsonl, "jsonl"), (RowFormat::Jsonl, "jsonl.gz"), (RowFormat::Compact, "pb.gz")]
        {
            let file = format!("edges-0-00000.{suffix}");
            let plan = PartPlan { file, kind: PartKind::Edges, log: 0, after: None, up_to: None };
            let mut writer = PartWriter::create(folder.path(), plan.clone(), format, Encoder(&schema)).unwrap();
            rows().iter().for_each(|row| writer.row(row).unwrap());
            assert!(!plan.path(folder.path()).exists(), "not yet whole");
            let part = writer.finish().unwrap();
            assert_eq!((part.rows, checksum(&plan.path(folder.path())).unwrap()), (299, (part.sha256, part.bytes)));
            let mut reader = PartReader::open(folder.path(), &plan, format).unwrap();
            reader.skip(250).unwrap();
            assert_eq!(reader.rows(&decoder, 20).unwrap(), rows()[250..270]);
            assert_eq!(reader.rows(&decoder, 1_000).unwrap(), rows()[270..]);
            assert!(reader.rows(&decoder, 1).unwrap().is_empty());
            // Cut off, it is an error and not the end.
            let whole = std::fs::read(plan.path(folder.path())).unwrap();
            std::fs::write(plan.path(folder.path()), &whole[..whole.len() - 5]).unwrap();
            let mut reader = PartReader::open(folder.path(), &plan, format).unwrap();
            assert!(reader.rows(&decoder, 1_000).is_err(), "{suffix}");
        }
    }

    #[test]
    fn a_row_of_a_type_that_is_not_known_is_not_left_out() {
        let (folder, schema) = (TempDir::new().unwrap(), Schema::social());
        let plan = PartPlan { file: "x.jsonl".to_owned(), kind: PartKind::Objects, log: 0, after: None, up_to: None };
        let mut writer = PartWriter::create(folder.path(), plan, RowFormat::Jsonl, Encoder(&schema)).unwrap();
        let (id, data) = (ObjectId::new(1).unwrap(), Bytes::new());
        let object = Object { id, otype: TypeId(99), version: 1, created_ms: 1, updated_ms: 1, data };
        assert!(writer.row(&GraphRow::Object(object)).unwrap_err().to_string().contains("type 99"));
    }
}
