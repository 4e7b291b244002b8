//! Fills the baselines' tables with a graph, through COPY.

use anyhow::Result;
use sqlx::postgres::PgCopyIn;
use sqlx::{Connection as _, PgConnection};

use super::log::now_ms;
use super::{key, schema};
use crate::graph::Graph;
use crate::op::AType;
use crate::target::Progress;

/// Bytes that are sent at once.
const CHUNK: usize = 256 * 1024;
/// How a binary COPY begins: a signature, flags, and no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// How it ends.
const TRAILER: [u8; 2] = [0xff; 2];
/// Nodes between two words about progress.
const STEP: u32 = 1_000;

/// Makes the tables and fills them; statistics are fresh when it returns.
pub async fn load(url: &str, graph: &Graph, progress: Progress<'_>) -> Result<()> {
    schema::create(url).await?;
    let mut connection = PgConnection::connect(url).await?;
    let mut done = 0;

    let mut rows = Rows::begin(&mut connection, "COPY objects FROM STDIN (FORMAT binary)").await?;
    let now = now_ms();
    for node in 0..graph.nodes() {
        rows.row(6).long(key(node)).int(1).long(1).long(now).long(now).bytes(graph.payload(graph.object(node)));
        rows.flush().await?;
        done += 1;
        if node % STEP == 0 {
            progress(done);
        }
    }
    rows.end().await?;

    let link = i32::from(AType::Link.number());
    let mut rows = Rows::begin(&mut connection, "COPY assocs FROM STDIN (FORMAT binary)").await?;
    for node in 0..graph.nodes() {
        for edge in graph.list(node) {
            rows.row(5).long(key(node)).int(link).long(key(edge.id2));
            rows.long(i64::from(edge.time)).bytes(graph.payload(edge.payload));
            rows.flush().await?;
            done += 1;
        }
        if node % STEP == 0 {
            progress(done);
        }
    }
    rows.end().await?;

    let mut rows = Rows::begin(&mut connection, "COPY assoc_counts FROM STDIN (FORMAT binary)").await?;
    for node in (0..graph.nodes()).filter(|node| graph.degree(*node) > 0) {
        rows.row(3).long(key(node)).int(link).long(i64::from(graph.degree(node)));
        rows.flush().await?;
    }
    rows.end().await?;
    schema::finish(url, graph.nodes()).await?;
    progress(done);
    Ok(())
}

/// Rows on their way into a table, in COPY's binary format.
struct Rows<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: Vec<u8>,
}

impl<'c> Rows<'c> {
    async fn begin(connection: &'c mut PgConnection, statement: &str) -> Result<Self> {
        let copy = connection.copy_in_raw(statement).await?;
        Ok(Self { copy, buffer: HEADER.to_vec() })
    }

    fn row(&mut self, fields: i16) -> &mut Self {
        self.buffer.extend_from_slice(&fields.to_be_bytes());
        self
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(value);
        self
    }

    fn long(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn int(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    async fn flush(&mut self) -> Result<()> {
        if self.buffer.len() >= CHUNK {
            self.copy.send(self.buffer.as_slice()).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        self.buffer.extend_from_slice(&TRAILER);
        self.copy.send(self.buffer.as_slice()).await?;
        self.copy.finish().await?;
        Ok(())
    }
}
