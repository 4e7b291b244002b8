//! Commands for people without grpcurl: one call each, through the Rust client.

mod audit;
mod confirm;
mod failure;
mod health;
pub mod http;
mod id;
mod objects;
mod output;
mod schema;
pub mod time;
mod tls;
mod values;
mod watch;

use std::time::Duration;

use clap::{Args, ValueEnum};
use tao_client::v1::{
    AssocAddRequest, AssocChangeTypeRequest, AssocCountRequest, AssocDeleteRequest, AssocGetRequest, AssocRangeRequest,
    AssocTimeRangeRequest, Consistency, ObjectAddRequest, ObjectDeleteRequest, ObjectUpdateRequest, Placement,
    ReadOptions, placement,
};
use tao_client::{Client, ClientOptions, Session};

pub use audit::{AuditArgs, audit};
pub use confirm::confirm;
pub use failure::{EXIT_CODES, Failure};
pub use health::{HealthArgs, health};
pub use id::{IdArgs, id};
use output::Answer;
pub use output::{Format, show, show_more};
pub use schema::{SchemaCommand, schema};
pub use tls::TlsArgs;
use values::{Field, Sum};
pub use watch::{WatchArgs, watch};

/// Where to call, and how to print.
#[derive(Debug, Args)]
pub struct Connection {
    /// The follower; several with commas between them
    #[arg(long, env = "TAO_ADDRESS", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    address: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// How long to wait for an answer, retries included
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// The session token of an earlier answer: reads see at least what that session has seen
    #[arg(long, env = "TAO_SESSION_TOKEN", value_name = "TOKEN", default_value = "")]
    token: String,
    /// How fresh a read must be [default: at-least-as-fresh with a token, minimize-latency without]
    #[arg(long, value_enum)]
    consistency: Option<Level>,
    /// With --consistency bounded-staleness: how old a read may be
    #[arg(long, value_name = "MILLISECONDS", required_if_eq("consistency", "bounded-staleness"))]
    max_staleness: Option<i64>,
    /// Print the answer's session token, too
    #[arg(long)]
    show_token: bool,
    /// How to print the answer
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// See docs/consistency.md.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// Whatever the follower's cache holds
    MinimizeLatency,
    /// At least what the token has seen
    AtLeastAsFresh,
    /// No older than --max-staleness
    BoundedStaleness,
    /// The newest committed state
    Strong,
}

/// Names an edge.
#[derive(Debug, Args)]
pub struct EdgeArgs {
    /// The object that the edge starts at
    id1: i64,
    /// The association type
    #[arg(value_name = "TYPE")]
    atype: String,
    /// The object that it points to
    id2: i64,
}

/// Which part of a list, and what with it.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// The object that the edges start at
    id1: i64,
    /// The association type
    #[arg(value_name = "TYPE")]
    atype: String,
    /// Edges at the most, 1 to 6000
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: i64,
    /// Where to go on: the cursor that an earlier answer gave
    #[arg(long, default_value = "")]
    cursor: String,
    /// Show the objects at the other ends, too
    #[arg(long)]
    objects: bool,
}

/// One call.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show objects
    #[command(after_help = "Those that are missing are named, and the exit code is then 3.

Examples:
  tao get 383557369735155712
  tao get 383557369735155712 383557369751937024 --consistency strong --output json")]
    Get {
        #[command(flatten)]
        connection: Connection,
        /// The objects
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Count the edges of one type from an object
    #[command(after_help = "Example:\n  tao count 383557369735155712 followed_by")]
    Count {
        #[command(flatten)]
        connection: Connection,
        /// The object
        id1: i64,
        /// The association type
        #[arg(value_name = "TYPE")]
        atype: String,
    },
    /// List edges, newest first
    #[command(after_help = "Examples:
  tao range 383557369735155712 followed_by --limit 10 --objects
  tao range 383557369735155712 followed_by --cursor CURSOR-OF-THE-ANSWER")]
    Range {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        page: PageArgs,
        /// Edges to skip
        #[arg(long, value_name = "N", default_value_t = 0)]
        offset: i64,
    },
    /// List the edges between two times, newest first
    #[command(
        after_help = "Example, a day:\n  tao time-range 383557369735155712 messaged --low 1709164800 --high 1709251199"
    )]
    TimeRange {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        page: PageArgs,
        /// Only edges of this time (seconds) or later
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
        low: Option<i64>,
        /// Only edges of this time (seconds) or earlier
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
        high: Option<i64>,
    },
    /// Show those of the edges to given objects that exist
    #[command(after_help = "Example, whom of two somebody follows:
  tao edges 383557369735155712 follows 383557369751937024 383557369768718336")]
    Edges {
        #[command(flatten)]
        connection: Connection,
        /// The object that the edges start at
        id1: i64,
        /// The association type
        #[arg(value_name = "TYPE")]
        atype: String,
        /// The objects that they point to
        #[arg(required = true)]
        id2s: Vec<i64>,
    },
    /// Add an object
    #[command(
        after_help = "A value is taken for an integer, a number or a boolean when it looks like one, else for text.
NAME:string=, :int=, :double=, :bool=, :bytes= (hexadecimal) and :timestamp= (RFC 3339) say which.

Examples:
  tao add user name=Ann age=30 zip:string=12345 born:timestamp=1994-02-28
  tao add post text='Hello, world' --near 383557369735155712"
    )]
    Add {
        #[command(flatten)]
        connection: Connection,
        /// The object type
        #[arg(value_name = "TYPE")]
        otype: String,
        /// Its fields
        #[arg(value_name = "NAME=VALUE")]
        fields: Vec<Field>,
        /// Place it on this object's shard
        #[arg(long, value_name = "ID")]
        near: Option<i64>,
    },
    /// Change fields of an object
    #[command(after_help = "Example:\n  tao update 383557369735155712 --set name=Anna --unset age --add visits=1")]
    Update {
        #[command(flatten)]
        connection: Connection,
        /// The object
        id: i64,
        /// A field to set
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<Field>,
        /// A field to remove
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        /// An integer field to add to
        #[arg(long, value_name = "NAME=N", allow_hyphen_values = true)]
        add: Vec<Sum>,
        /// The version that the object must have
        #[arg(long, value_name = "N")]
        expected_version: Option<i64>,
    },
    /// Delete an object; its edges stay
    #[command(after_help = "Example:\n  tao delete 383557369735155712")]
    Delete {
        #[command(flatten)]
        connection: Connection,
        /// The object
        id: i64,
    },
    /// Add an edge, with its inverse
    #[command(after_help = "Examples:
  tao link 383557369735155712 follows 383557369751937024
  tao link 383557369735155712 likes 383557369751937024 --time 1709164800 stars=5")]
    Link {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        edge: EdgeArgs,
        /// Seconds [default: now]
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
        time: Option<i64>,
        /// Its fields
        #[arg(value_name = "NAME=VALUE")]
        fields: Vec<Field>,
    },
    /// Delete an edge, with its inverse
    #[command(after_help = "Example:\n  tao unlink 383557369735155712 follows 383557369751937024")]
    Unlink {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        edge: EdgeArgs,
    },
    /// Move an edge, with its inverse, to another type
    #[command(after_help = "Example:\n  tao change-type 383557369735155712 follows 383557369751937024 friend")]
    ChangeType {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        edge: EdgeArgs,
        /// The type that it gets
        new_type: String,
    },
}

impl Command {
    const fn connection(&self) -> &Connection {
        match self {
            Self::Get { connection, .. }
            | Self::Count { connection, .. }
            | Self::Range { connection, .. }
            | Self::TimeRange { connection, .. }
            | Self::Edges { connection, .. }
            | Self::Add { connection, .. }
            | Self::Update { connection, .. }
            | Self::Delete { connection, .. }
            | Self::Link { connection, .. }
            | Self::Unlink { connection, .. }
            | Self::ChangeType { connection, .. } => connection,
        }
    }

    /// Makes the call and prints its answer.
    pub fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        runtime.block_on(async {
            let connection = self.connection();
            let (format, shows_token, options) = (connection.output, connection.show_token, connection.read());
            let session = connection.session()?;
            let answer = send(&session, self, options).await?;
            let token = shows_token.then(|| session.token());
            show(&answer.print(format, token.as_deref()))?;
            answer.failure().map_or(Ok(()), Err)
        })
    }
}

impl Connection {
    fn session(&self) -> Result<Session, Failure> {
        let (deadline, tls, bearer) = (Duration::from_secs(self.timeout), self.tls.client()?, self.tls.bearer()?);
        let options = ClientOptions { deadline, tls, bearer, ..Default::default() };
        Ok(Client::connect(&self.address, options)?.session().with_token(&self.token))
    }

    fn read(&self) -> Option<ReadOptions> {
        let consistency = match self.consistency {
            None => Consistency::Unspecified,
            Some(Level::MinimizeLatency) => Consistency::MinimizeLatency,
            Some(Level::AtLeastAsFresh) => Consistency::AtLeastAsFresh,
            Some(Level::BoundedStaleness) => Consistency::BoundedStaleness,
            Some(Level::Strong) => Consistency::Strong,
        };
        let max_staleness_ms = self.max_staleness.unwrap_or_default();
        Some(ReadOptions { consistency: consistency as i32, max_staleness_ms, ..Default::default() })
    }
}

async fn send(session: &Session, command: Command, options: Option<ReadOptions>) -> Result<Answer, Failure> {
    Ok(match command {
        Command::Get { ids, .. } => objects::get(session, &ids, options).await?,
        Command::Count { id1, atype, .. } => {
            let got = session.assoc_count(AssocCountRequest { id1, r#type: atype, options }).await?;
            Answer::facts([("count", got.count.into())])
        }
        Command::Range { page, offset, .. } => {
            let request = AssocRangeRequest {
                id1: page.id1,
                r#type: page.atype,
                offset,
                limit: page.limit,
                cursor: page.cursor,
                with_objects: page.objects,
                options,
            };
            let got = session.assoc_range(request).await?;
            Answer::edges(got.assocs, got.objects, got.next_cursor)
        }
        Command::TimeRange { page, low, high, .. } => {
            let request = AssocTimeRangeRequest {
                id1: page.id1,
                r#type: page.atype,
                low,
                high,
                limit: page.limit,
                cursor: page.cursor,
                with_objects: page.objects,
                options,
            };
            let got = session.assoc_time_range(request).await?;
            Answer::edges(got.assocs, got.objects, got.next_cursor)
        }
        Command::Edges { id1, atype, id2s, .. } => {
            let request = AssocGetRequest { id1, r#type: atype, id2s, low: None, high: None, options };
            let got = session.assoc_get(request).await?;
            Answer::edges(got.assocs, Vec::new(), String::new()).with_remaining(got.remaining)
        }
        Command::Add { otype, fields, near, .. } => {
            let placement = near.map(|id| Placement { r#where: Some(placement::Where::Near(id)) });
            let request =
                ObjectAddRequest { r#type: otype, data: values::data(fields)?, placement, ..Default::default() };
            Answer::objects(session.object_add(request).await?.object)
        }
        Command::Update { id, set, unset, add, expected_version, .. } => {
            let request = ObjectUpdateRequest {
                id,
                set: values::data(set)?,
                unset,
                add: values::sums(add)?,
                expected_version,
                options: None,
            };
            Answer::objects(session.object_update(request).await?.object)
        }
        Command::Delete { id, .. } => {
            let got = session.object_delete(ObjectDeleteRequest { id, ..Default::default() }).await?;
            Answer::facts([("deleted", got.deleted.into())])
        }
        Command::Link { edge, time, fields, .. } => {
            let data = values::data(fields)?;
            let request =
                AssocAddRequest { id1: edge.id1, r#type: edge.atype, id2: edge.id2, time, data, options: None };
            let got = session.assoc_add(request).await?;
            Answer::facts([("created", got.created.into()), ("count", got.count.into())])
        }
        Command::Unlink { edge, .. } => {
            let request = AssocDeleteRequest { id1: edge.id1, r#type: edge.atype, id2: edge.id2, options: None };
            let got = session.assoc_delete(request).await?;
            Answer::facts([("deleted", got.deleted.into()), ("count", got.count.into())])
        }
        Command::ChangeType { edge, new_type, .. } => {
            let request =
                AssocChangeTypeRequest { id1: edge.id1, r#type: edge.atype, id2: edge.id2, new_type, options: None };
            let got = session.assoc_change_type(request).await?;
            Answer::facts([("count", got.count.into())])
        }
    })
}
