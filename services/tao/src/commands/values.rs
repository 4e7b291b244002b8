//! Fields as people type them: `name=value`, or `name:kind=value`.

use std::collections::BTreeMap;
use std::str::FromStr;

use tao_client::Timestamp;
use tao_client::v1::Value;
use tao_client::v1::value::Kind;

use super::failure::Failure;
use super::time::parse_rfc3339;

/// A field and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    name: String,
    kind: Kind,
}

/// As the API's maps have them; a field that is given twice is a mistake, whichever was meant.
pub fn data(fields: Vec<Field>) -> Result<BTreeMap<String, Value>, Failure> {
    once(fields.into_iter().map(|field| (field.name, Value { kind: Some(field.kind) })))
}

/// As the API's map has them, each once.
pub fn sums(sums: Vec<Sum>) -> Result<BTreeMap<String, i64>, Failure> {
    once(sums.into_iter().map(|sum| (sum.name, sum.by)))
}

fn once<T>(pairs: impl Iterator<Item = (String, T)>) -> Result<BTreeMap<String, T>, Failure> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value).is_some() {
            return Err(Failure::bad_input(format!("field {name:?} is given twice")));
        }
    }
    Ok(map)
}

/// A field and what is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    name: String,
    by: i64,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a field is NAME=VALUE")?;
        let (name, kind) = match name.rsplit_once(':') {
            None => (name, guess(value)),
            Some((name, kind)) => (name, typed(kind, value)?),
        };
        Ok(Self { name: name.to_owned(), kind })
    }
}

impl FromStr for Sum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, by) = text.split_once('=').ok_or("a sum is NAME=N")?;
        let by = by.parse().map_err(|_| format!("{by:?} is no 64-bit integer"))?;
        Ok(Self { name: name.to_owned(), by })
    }
}

fn guess(value: &str) -> Kind {
    // Not `infinity` or `nan`, and no integer that is too large for one and would lose digits.
    let is_decimal = value.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.')
        && value.contains(['.', 'e', 'E'])
        && value.contains(|c: char| c.is_ascii_digit());
    match (value.parse::<i64>(), value.parse::<f64>(), value.parse::<bool>()) {
        // What would not be printed as it was typed, such as 01234, is text.
        (Ok(n), _, _) if n.to_string() == value => Kind::Int64Value(n),
        (_, Ok(d), _) if is_decimal && d.is_finite() => Kind::DoubleValue(d),
        (_, _, Ok(b)) => Kind::BoolValue(b),
        _ => Kind::StringValue(value.to_owned()),
    }
}

fn typed(kind: &str, value: &str) -> Result<Kind, String> {
    let wrong = || format!("{value:?} is no {kind}");
    Ok(match kind {
        "string" => Kind::StringValue(value.to_owned()),
        "int" => Kind::Int64Value(value.parse().map_err(|_| wrong())?),
        "double" => Kind::DoubleValue(value.parse().map_err(|_| wrong())?),
        "bool" => Kind::BoolValue(value.parse().map_err(|_| wrong())?),
        "bytes" => {
            let digits = value.as_bytes().chunks(2);
            let byte = |pair: &[u8]| {
                u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16)
                    .ok()
                    .filter(|_| pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit))
            };
            Kind::BytesValue(digits.map(byte).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?.into())
        }
        "timestamp" => {
            let (seconds, nanos) = parse_rfc3339(value).ok_or_else(wrong)?;
            Kind::TimestampValue(Timestamp { seconds, nanos })
        }
        other => return Err(format!("{other:?} is no kind: string, int, double, bool, bytes or timestamp")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(text: &str) -> Kind {
        text.parse::<Field>().unwrap().kind
    }

    #[test]
    fn kinds_are_guessed_or_said() {
        assert_eq!(kind("a=12"), Kind::Int64Value(12));
        assert_eq!(kind("a=-1.5"), Kind::DoubleValue(-1.5));
        assert_eq!(kind("a=true"), Kind::BoolValue(true));
        assert_eq!((kind("a=1e3"), kind("a=.5")), (Kind::DoubleValue(1_000.0), Kind::DoubleValue(0.5)));
        assert_eq!(kind("a=-9223372036854775808"), Kind::Int64Value(i64::MIN));
        // An integer of 20 digits as a double would be another one.
        for text in
            ["infinity", "nan", "-inf", "1.2.3", "", "x=y", "01234", "+1", "9223372036854775808", "1e999", "-", "True"]
        {
            assert_eq!(kind(&format!("a={text}")), Kind::StringValue(text.to_owned()));
        }
        assert_eq!(kind("a:string=12"), Kind::StringValue("12".to_owned()));
        assert_eq!(kind("a:double=1"), Kind::DoubleValue(1.0));
        assert_eq!(kind("a:double=inf"), Kind::DoubleValue(f64::INFINITY));
        assert_eq!(kind("a:string="), Kind::StringValue(String::new()));
        assert_eq!(kind("a:timestamp=1970-01-02"), Kind::TimestampValue(Timestamp { seconds: 86_400, nanos: 0 }));
        assert_eq!(kind("a:bytes=00ff"), Kind::BytesValue(vec![0, 255].into()));
        for wrong in ["a", "a:int=x", "a:bytes=0", "a:bytes=zz", "a:bytes=+1", "a:bytes=é", "a:date=1", "a:timestamp=x"]
        {
            assert!(wrong.parse::<Field>().is_err(), "{wrong}");
        }
        assert_eq!("n=-3".parse(), Ok(Sum { name: "n".to_owned(), by: -3 }));
        assert!("n=x".parse::<Sum>().is_err());
    }

    #[test]
    fn a_field_that_is_given_twice_is_a_mistake() {
        let fields = |texts: &[&str]| texts.iter().map(|text| text.parse::<Field>().unwrap()).collect::<Vec<_>>();
        assert_eq!(data(fields(&["a=1", "b=2"])).unwrap().len(), 2);
        assert!(data(fields(&["a=1", "a:string=1"])).unwrap_err().to_string().contains("\"a\" is given twice"));
        let sum = |text: &str| text.parse::<Sum>().unwrap();
        assert_eq!(sums(vec![sum("n=1"), sum("n=2")]).unwrap_err().number(), 2);
    }

    proptest! {
        #[test]
        fn any_argument_is_a_field_or_told_why_not(text in "\\PC{0,8}(:(int|double|bool|bytes|string|timestamp))?=\\PC{0,12}|\\PC{0,12}") {
            if let Err(why) = text.parse::<Field>() {
                prop_assert!(!why.is_empty());
            }
        }

        #[test]
        fn integers_and_finite_doubles_keep_their_value(n: i64, d in proptest::num::f64::NORMAL) {
            prop_assert_eq!(kind(&format!("a={n}")), Kind::Int64Value(n));
            prop_assert_eq!(kind(&format!("a={d:e}")), Kind::DoubleValue(d));
        }
    }
}
