//! `tao id`: takes ids apart, without a server.

use std::str::FromStr;

use clap::Args;
use serde_json::json;
use tao_model::{IdLayout, ObjectId};

use super::failure::Failure;
use super::output::{Format, show};

/// Arguments of `tao id`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tao id 383557369735155712")]
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
    for raw in &args.ids {
        let id = ObjectId::new(*raw).ok_or_else(|| Failure::bad_input(format!("{raw} is not positive, as ids are")))?;
        let parts = args.bits.0.decode(id);
        let time = rfc3339(parts.time_ms);
        let text = match args.output {
            Format::Text => format!("{id}  time {time}  shard {}  sequence {}", parts.shard, parts.sequence),
            Format::Json => {
                json!({"id": raw.to_string(), "time": time, "time_ms": parts.time_ms, "shard": parts.shard.0, "sequence": parts.sequence})
                    .to_string()
            }
        };
        show(&(text + "\n"))?;
    }
    Ok(())
}

/// Milliseconds since 1970 as a date and time in UTC.
fn rfc3339(ms: u64) -> String {
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_704_067_200_000, "2024-01-01T00:00:00.000Z"),
            (4_107_542_399_123, "2100-02-28T23:59:59.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn layouts_are_three_numbers() {
        assert_eq!("42/10/12".parse::<Bits>().unwrap().0, IdLayout::STANDARD);
        for wrong in ["42/10", "42/10/13", "a/b/c", "1/2/3/4", "42/40/12", ""] {
            assert!(wrong.parse::<Bits>().is_err(), "{wrong}");
        }
    }
}
