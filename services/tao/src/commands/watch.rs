//! `tao watch`: changes as they are committed, one JSON object a line.

use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};
use tao_client::v1::{AssocChange, Change, WatchRequest, change::Kind};
use tao_client::{Client, ClientError, ClientOptions, Session, Watch};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output::{json_data, json_object, show, show_more};
use super::tls::TlsArgs;

/// Arguments of `tao watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The follower; several with commas between them
    #[arg(long, env = "TAO_ADDRESS", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    address: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// How long the followers may be out of reach
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Resume: the token that an earlier watch printed last
    #[arg(long, env = "TAO_SESSION_TOKEN", value_name = "TOKEN", default_value = "")]
    token: String,
    /// Begin with changes of so many milliseconds ago, or as far back as they are kept
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, conflicts_with = "token")]
    since: i64,
    /// Only changes of this association type or object type; may be given more than once
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only changes of this object and of edges that start at it; may be given more than once
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<i64>,
    /// Only changes on this logical shard; may be given more than once
    #[arg(long = "shard", value_name = "SHARD")]
    shards: Vec<i64>,
}

/// Prints changes until Ctrl-C, and then the token to go on with.
pub fn watch(args: WatchArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    runtime.block_on(async {
        let (deadline, tls, bearer) = (Duration::from_secs(args.timeout), args.tls.client()?, args.tls.bearer()?);
        let options = ClientOptions { deadline, tls, bearer, ..Default::default() };
        let session = Client::connect(&args.address, options)?.session();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
        let mut watch = None;
        let watching = async {
            let watch = watch.insert(begin(&session, args).await?);
            loop {
                let lines: String = watch.next().await?.iter().map(|change| format!("{}\n", line(change))).collect();
                if !show_more(&lines)? {
                    return Ok(());
                }
            }
        };
        let ended: Result<(), Failure> = tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            ended = watching => ended,
        };
        // Whatever ended it: what was shown need not be shown again.
        if let Some(watch) = watch {
            show(&format!("{}\n", json!({"session_token": watch.token()})))?;
        }
        ended
    })
}

/// Begins. Whether a name is of an association type or of an object type, only the server's schema knows.
async fn begin(session: &Session, args: WatchArgs) -> Result<Watch, ClientError> {
    let mut request = WatchRequest {
        shards: args.shards,
        assoc_types: args.types,
        ids: args.ids,
        since_ms: args.since,
        session_token: args.token,
        ..Default::default()
    };
    let mut watch = session.watch(request.clone());
    let Err(error) = watch.begin().await else { return Ok(watch) };
    let is_unknown = |n: usize| error.violations().iter().any(|(field, _)| *field == format!("assoc_types[{n}]"));
    let (mut objects, mut assocs) = (Vec::new(), Vec::new());
    for (n, name) in request.assoc_types.into_iter().enumerate() {
        if is_unknown(n) { objects.push(name) } else { assocs.push(name) }
    }
    if objects.is_empty() {
        return Err(error);
    }
    (request.object_types, request.assoc_types) = (objects, assocs);
    let mut watch = session.watch(request);
    watch.begin().await?;
    Ok(watch)
}

fn line(change: &Change) -> Json {
    let edge = |name: &str, change: &AssocChange| {
        let assoc = change.assoc.clone().unwrap_or_default();
        let mut line = json!({
            "change": name,
            "id1": assoc.id1.to_string(),
            "type": assoc.r#type,
            "id2": assoc.id2.to_string(),
            "count": change.count,
        });
        if name == "assoc_put" {
            line["time"] = assoc.time.into();
            line["data"] = json_data(&assoc.data);
        }
        line
    };
    match &change.kind {
        Some(Kind::ObjectPut(object)) => json!({"change": "object_put", "object": json_object(object)}),
        Some(Kind::ObjectDeleted(id)) => json!({"change": "object_deleted", "id": id.to_string()}),
        Some(Kind::AssocPut(change)) => edge("assoc_put", change),
        Some(Kind::AssocDeleted(change)) => edge("assoc_deleted", change),
        None => json!({"change": "unknown"}),
    }
}
