//! `tao id`: takes ids apart, without a server.

use std::str::FromStr;

use clap::Args;
use serde_json::json;
use tao_model::id::IdParts;
use tao_model::{IdLayout, ObjectId};

use super::failure::Failure;
use super::output::{Format, show};
use super::time::rfc3339_ms;

/// Arguments of `tao id`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tao id 383557369735155712\n  tao id 383557369735155712 --bits 42/18/4 --output json"
)]
pub struct IdArgs {
    /// The ids
    #[arg(required = true)]
    ids: Vec<i64>,
    /// How the cluster's ids are split: bits of time, shard and sequence
    #[arg(long, value_name = "T/S/Q", default_value = "42/10/12")]
    bits: Bits,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy)]
struct Bits(IdLayout);

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bits: Option<Vec<u8>> = text.split('/').map(|n| n.parse().ok()).collect();
        match bits.as_deref() {
            Some(&[time, shard, sequence]) if shard < 32 => IdLayout::new(time, shard, sequence, 1 << shard).map(Self),
            _ => Err("three numbers, such as 42/10/12".to_owned()),
        }
    }
}

/// Prints time, shard and sequence of each id.
pub fn id(args: &IdArgs) -> Result<(), Failure> {
    let lines = args.ids.iter().map(|raw| line(*raw, args.bits.0, args.output));
    show(&lines.collect::<Result<String, _>>()?)
}

fn line(raw: i64, layout: IdLayout, format: Format) -> Result<String, Failure> {
    let id = ObjectId::new(raw).ok_or_else(|| Failure::bad_input(format!("{raw} is not positive, as ids are")))?;
    let IdParts { time_ms, shard, sequence } = layout.decode(id);
    let time = rfc3339_ms(time_ms).unwrap_or_else(|| "after 9999".to_owned());
    Ok(match format {
        Format::Text => format!("{id}  time {time}  shard {shard}  sequence {sequence}\n"),
        Format::Json => {
            let (id, shard) = (raw.to_string(), shard.0);
            format!("{}\n", json!({"id": id, "time": time, "time_ms": time_ms, "shard": shard, "sequence": sequence}))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_three_numbers() {
        assert_eq!("42/10/12".parse::<Bits>().unwrap().0, IdLayout::STANDARD);
        for wrong in ["42/10", "42/10/13", "a/b/c", "1/2/3/4", "42/40/12", ""] {
            assert!(wrong.parse::<Bits>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_id_tells_when_and_where_it_was_made() {
        let layout = IdLayout::STANDARD;
        let parts = IdParts { time_ms: 1_709_164_800_123, shard: tao_model::ShardId(77), sequence: 9 };
        let id = layout.encode(parts).unwrap().get();
        let text = line(id, layout, Format::Text).unwrap_or_default();
        assert_eq!(text, format!("{id}  time 2024-02-29T00:00:00.123Z  shard 77  sequence 9\n"));
        let parsed: serde_json::Value = serde_json::from_str(&line(id, layout, Format::Json).unwrap()).unwrap();
        let want = json!({"id": id.to_string(), "time": "2024-02-29T00:00:00.123Z", "time_ms": 1_709_164_800_123_u64, "shard": 77, "sequence": 9});
        assert_eq!(parsed, want);
        let Bits(wide) = "42/18/4".parse().unwrap();
        assert!(line(id, wide, Format::Text).unwrap().contains("shard 19712  sequence 9"));
        assert_eq!(line(0, layout, Format::Text).unwrap_err().number(), 2);
        for extreme in [1, i64::MAX] {
            for bits in ["38/22/4", "46/14/4", "42/10/12"] {
                assert!(line(extreme, bits.parse::<Bits>().unwrap().0, Format::Text).is_ok());
            }
        }
    }
}
