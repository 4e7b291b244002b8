//! `tao verify`: whether what the databases hold is what they say, and what they promise each other.

mod check;
mod finding;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value as Json, json};
use tao_store::direct::{RowChange, cut, mend, pending};

use crate::commands::{Failure, Format, confirm, show};
use crate::databases::{DatabaseArgs, Databases, block_on};
use crate::load::progress::Progress;
use check::{Check, Repairs};
pub use finding::Findings;

/// Repairs of one kind and database that one run makes; what is left is found by the next.
const REPAIRS: usize = 100_000;
/// Pairs that are made whole at once: nobody writes meanwhile.
const AT_ONCE: usize = 200;

/// Arguments of `tao verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    databases: DatabaseArgs,
    /// Mend counts and inverses: nothing is removed, and caches hear of it
    #[arg(long)]
    repair: bool,
    /// With --repair: don't ask
    #[arg(long, requires = "repair")]
    yes: bool,
    /// How to print what was found
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// What a verification has come to.
#[derive(Debug, Default)]
pub struct Verified {
    /// Objects, edges and lists that were looked at.
    pub rows: (u64, u64, u64),
    /// Edges whose inverse is under way.
    pub pending: usize,
    /// What is wrong.
    pub findings: Findings,
    /// Rows that were changed to mend it.
    pub repaired: Option<usize>,
}

/// Looks at everything, and prints what is wrong; the exit code is 1 when something is, and was not repaired.
pub fn verify(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    if args.repair {
        confirm("edges and counts that are wrong will be put right", args.yes)?;
    }
    let (verified, left) = block_on(async {
        let databases = args.databases.open().await?;
        let verified = check(&databases, args.repair).await?;
        // What could not be repaired is found once more.
        let left = match verified.repaired {
            Some(_) if verified.findings.total() > 0 => check(&databases, false).await?.findings.total(),
            Some(_) | None => verified.findings.total(),
        };
        Ok((verified, left))
    })?;
    show(&match args.output {
        Format::Text => text(&verified, left),
        Format::Json => format!("{}\n", report(&verified, left)),
    })?;
    Ok(if left > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Looks at all databases, as they are at one moment.
pub async fn check(databases: &Databases, repair: bool) -> Result<Verified, Failure> {
    let count = databases.all.len();
    let mut snapshots = cut(&databases.all, count + 1).await?;
    let mut verified = Verified::default();
    let mut under_way = HashSet::new();
    for these in &mut snapshots {
        let (objects, edges, lists) = these[0].totals().await?;
        let rows = &mut verified.rows;
        (rows.0, rows.1, rows.2) = (rows.0 + objects, rows.1 + edges, rows.2 + lists);
        under_way.extend(pending(&mut these[0], &databases.schema).await?);
    }
    verified.pending = under_way.len();
    let under_way = Arc::new(under_way);
    let total = verified.rows.0 + verified.rows.1;
    let progress = Arc::new(Mutex::new(Progress::new("rows", total as usize, 0)));
    let shards: Arc<[_]> = databases.all.iter().map(|database| database.shards().clone()).collect();
    let room = if repair { REPAIRS } else { 0 };
    let mut checks = Vec::with_capacity(count);
    for place in (0..count).rev() {
        let scan = snapshots[place].pop().ok_or_else(|| Failure::other("a snapshot is missing"))?;
        checks.push((place, scan));
    }
    let checks = checks.into_iter().map(|(place, scan)| {
        let look_ups = snapshots.iter_mut().filter_map(Vec::pop).collect();
        let mut check = Check {
            schema: databases.schema.clone(),
            shards: shards.clone(),
            place,
            scan,
            look_ups,
            pending: under_way.clone(),
            progress: progress.clone(),
            findings: Findings::default(),
            repairs: Repairs { room, ..Repairs::default() },
            layout: databases.layout,
        };
        tokio::spawn(async move { check.run().await.map(|()| check) })
    });
    let mut repairs = Vec::new();
    for checked in try_join_all(checks.collect::<Vec<_>>()).await.map_err(Failure::other)? {
        let check = checked?;
        verified.findings.merge(check.findings);
        repairs.push((check.place, check.repairs));
    }
    if repair {
        verified.repaired = Some(mend_all(databases, repairs).await?);
    }
    Ok(verified)
}

/// Inverses first: counts that are wrong by them are right then.
async fn mend_all(databases: &Databases, repairs: Vec<(usize, Repairs)>) -> Result<usize, Failure> {
    let mut changed = 0;
    for edges in repairs.iter().flat_map(|(_, repairs)| repairs.edges.chunks(AT_ONCE)) {
        changed += mend(&databases.all, &databases.schema, edges).await?;
    }
    for (place, repairs) in &repairs {
        for (id1, atype) in &repairs.lists {
            changed += databases.all[*place].apply(&[RowChange::Recount(*id1, *atype)]).await?;
        }
    }
    Ok(changed)
}

fn report(verified: &Verified, left: u64) -> Json {
    let (objects, edges, lists) = verified.rows;
    json!({
        "objects": objects,
        "edges": edges,
        "lists": lists,
        "pending": verified.pending,
        "problems": verified.findings.total(),
        "findings": verified.findings.json(),
        "repaired": verified.repaired,
        "left": left,
    })
}

fn text(verified: &Verified, left: u64) -> String {
    let (objects, edges, lists) = verified.rows;
    let mut out = format!("looked at {objects} objects, {edges} edges (each direction is one), {lists} lists\n");
    if verified.pending > 0 {
        out.push_str(&format!("{} edges are under way to another database\n", verified.pending));
    }
    out.push_str(&verified.findings.to_string());
    match verified.repaired {
        Some(rows) => out.push_str(&format!("repaired {rows} rows; {left} problems are left\n")),
        None if left == 0 => out.push_str("everything is as it should be\n"),
        None => out.push_str(&format!("{left} problems; --repair mends counts and inverses\n")),
    }
    out
}
