//! Points in time as RFC 3339 writes them, in UTC.

/// 0001-01-01T00:00:00Z, in seconds since 1970: what the API's timestamps begin with.
const FIRST: i64 = -62_135_596_800;
/// The last second of 9999.
const LAST: i64 = 253_402_300_799;
const DAY: i64 = 86_400;

/// Seconds since 1970 and nanoseconds; as many decimals as there are, in threes. `None` outside the years 1 to 9999.
pub fn rfc3339(seconds: i64, nanos: i32) -> Option<String> {
    if !(FIRST..=LAST).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let fraction = match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    };
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z"))
}

/// Milliseconds since 1970, always with their three decimals. `None` after 9999.
pub fn rfc3339_ms(ms: u64) -> Option<String> {
    let text = rfc3339(i64::try_from(ms / 1_000).ok()?, 0)?;
    Some(format!("{}.{:03}Z", text.trim_end_matches('Z'), ms % 1_000))
}

/// The year, month and day of a day since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

/// The day since 1970 of a year, month and day.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + year * 365 + year / 4 - year / 100 + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Reads `2024-02-29T12:00:00.5Z`, `2024-02-29T12:00:00+01:00` or a bare `2024-02-29` as seconds since 1970 and nanoseconds.
pub fn parse_rfc3339(text: &str) -> Option<(i64, i32)> {
    let (day, time) = text.split_once(['T', 't', ' ']).map_or((text, None), |(day, time)| (day, Some(time)));
    let mut parts = day.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let days = day_number(year, month, day);
    if parts.next().is_some() || date(days) != (year, month, day) {
        return None;
    }
    let (seconds, nanos) = time.map_or(Some((0, 0)), time_of_day)?;
    let seconds = days * DAY + seconds;
    (FIRST..=LAST).contains(&seconds).then_some((seconds, nanos))
}

fn time_of_day(text: &str) -> Option<(i64, i32)> {
    let zone_at = text.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = text.split_at(zone_at);
    let offset = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, zone) => {
            let (h, m) = zone.split_once(':')?;
            let (h, m) = (number(h, 2).filter(|h| *h < 24)?, number(m, 2).filter(|m| *m < 60)?);
            (h * 3_600 + m * 60) * if sign == "-" { -1 } else { 1 }
        }
    };
    let (time, fraction) = time.split_once('.').map_or((time, "0"), |(time, fraction)| (time, fraction));
    let mut parts = time.split(':');
    let mut part = |below| number(parts.next()?, 2).filter(|n| *n < below);
    let (h, m, s) = (part(24)?, part(60)?, part(60)?);
    if parts.next().is_some() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let nanos = number(fraction, fraction.len())? * 10_i64.pow(9 - fraction.len() as u32);
    Some((h * 3_600 + m * 60 + s - offset, nanos as i32))
}

/// Digits, and so many.
fn number(text: &str, len: usize) -> Option<i64> {
    (text.len() == len && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert_eq!(rfc3339_ms(ms).as_deref(), Some(text));
            assert_eq!(parse_rfc3339(text), Some(((ms / 1_000) as i64, (ms % 1_000) as i32 * 1_000_000)));
        }
        assert_eq!(rfc3339(FIRST, 0).as_deref(), Some("0001-01-01T00:00:00Z"));
        assert_eq!(rfc3339(LAST, 1_000).as_deref(), Some("9999-12-31T23:59:59.000001Z"));
        for (seconds, nanos) in [(FIRST - 1, 0), (LAST + 1, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, 0)] {
            assert_eq!(rfc3339(seconds, nanos), None);
        }
        assert_eq!(rfc3339_ms(u64::MAX), None);
    }

    #[test]
    fn zones_are_taken_off_and_days_are_midnight() {
        assert_eq!(parse_rfc3339("2024-02-29"), Some((1_709_164_800, 0)));
        assert_eq!(parse_rfc3339("2024-02-29 01:30:00.25+01:30"), Some((1_709_164_800, 250_000_000)));
        assert_eq!(parse_rfc3339("2024-02-28T23:00:00-01:00"), Some((1_709_164_800, 0)));
        for wrong in [
            "",
            "2024",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-32",
            "24-01-01",
            "2024-01-01T",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.1234567890Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00Zz",
            "0001-01-01T00:00:00+00:01",
            "0000-01-01",
            "2024-01-01T+0:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in FIRST..=LAST, nanos in 0..1_000_000_000) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(seconds, nanos).unwrap()), Some((seconds, nanos)));
        }

        #[test]
        fn any_text_is_a_time_or_not(text in "[0-9TZ:.+ -]{0,30}|\\PC{0,30}") {
            parse_rfc3339(&text);
        }
    }
}
