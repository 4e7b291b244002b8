//! One writer by itself: an edge through all three tiers, and one autocommitted statement.

use std::time::Instant;

use anyhow::Result;
use sqlx::{Connection as _, PgConnection};
use tokio::task::LocalSet;

use super::closed_loop::median;
use super::key;
use super::postgres::Direct;
use super::tao::Tao;
use crate::graph::{Graph, NEWEST};
use crate::hash::{below, bits};
use crate::op::{AType, Op};
use crate::target::{Caller as _, Target as _};

const STATEMENT: &str = "INSERT INTO assocs (id1, atype, id2, time, data) VALUES ($1, $2, $3, $4, $5) \
                         ON CONFLICT (id1, atype, id2) DO UPDATE SET time = excluded.time, data = excluded.data";
/// Before anything is counted: connections, prepared statements, ids.
const WARM_UP: usize = 50;
const ENDS: u64 = 0x10e1;
/// Bytes.
const PAYLOAD: u32 = 16;

/// Of many writes, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// The one in the middle.
    pub median: f64,
    /// The slowest of a hundred.
    pub p99: f64,
}

/// How long a write takes whose writer is alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoneWriter {
    /// AssocAdd of an edge without an inverse, by the client library.
    pub ours: Latency,
    /// `INSERT … ON CONFLICT` of one edge on one connection.
    pub statement: Latency,
}

impl LoneWriter {
    /// How many statements one of our writes takes.
    pub fn ratio(&self) -> f64 {
        self.ours.median / self.statement.median
    }
}

/// Writes by turns, `writes` of each, on a runtime of its own. Both sides are loaded with the same graph.
pub fn compare(tao: &Tao, direct: &Direct, graph: &Graph, writes: usize) -> Result<LoneWriter> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let caller = tao.caller(0).await?;
        let mut connection = PgConnection::connect(&direct.url()).await?;
        let (mut ours, mut statements) = (Vec::with_capacity(writes), Vec::with_capacity(writes));
        for n in 0..WARM_UP + writes {
            let chance = bits(graph.seed(), ENDS, n as u64);
            let id1 = below(chance, graph.nodes());
            let id2 = (id1 + 1 + below(chance << 32, graph.nodes() - 1)) % graph.nodes();
            let (time, payload) = (NEWEST + 1 + n as u32, (chance as u32) << 14 | PAYLOAD);

            let begun = Instant::now();
            caller.run(&Op::AssocAdd { id1, id2, time, payload, atype: AType::Link }).await?;
            let our_time = begun.elapsed();

            let begun = Instant::now();
            sqlx::query(STATEMENT)
                .bind(key(id1))
                .bind(i32::from(AType::Link.number()))
                .bind(key(id2))
                .bind(i64::from(time))
                .bind(graph.payload(payload))
                .execute(&mut connection)
                .await?;
            let their_time = begun.elapsed();
            if n >= WARM_UP {
                ours.push(our_time.as_secs_f64() * 1e6);
                statements.push(their_time.as_secs_f64() * 1e6);
            }
        }
        Ok(LoneWriter { ours: latency(ours), statement: latency(statements) })
    })
}

fn latency(mut values: Vec<f64>) -> Latency {
    values.sort_by(f64::total_cmp);
    let p99 = values.get(values.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Latency { median: median(values), p99 }
}
