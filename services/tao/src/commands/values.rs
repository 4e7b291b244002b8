//! Fields as people type them: `name=value`, or `name:kind=value`.

use std::str::FromStr;

use tao_client::v1::Value;
use tao_client::v1::value::Kind;

/// A field and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    name: String,
    kind: Kind,
}

impl Field {
    /// As the API's maps have it.
    pub fn into_pair(self) -> (String, Value) {
        (self.name, Value { kind: Some(self.kind) })
    }
}

/// A field and what is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The field.
    pub name: String,
    /// How much.
    pub by: i64,
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
    let looks_like_a_number = value.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    match (value.parse::<i64>(), value.parse::<f64>(), value.parse::<bool>()) {
        // What would not be printed as it was typed, such as 01234, is text.
        (Ok(n), _, _) if n.to_string() == value => Kind::Int64Value(n),
        (Ok(_), _, _) => Kind::StringValue(value.to_owned()),
        (_, Ok(d), _) if looks_like_a_number => Kind::DoubleValue(d),
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
        other => return Err(format!("{other:?} is no kind: string, int, double, bool or bytes")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        text.parse::<Field>().unwrap().kind
    }

    #[test]
    fn kinds_are_guessed_or_said() {
        assert_eq!(kind("a=12"), Kind::Int64Value(12));
        assert_eq!(kind("a=-1.5"), Kind::DoubleValue(-1.5));
        assert_eq!(kind("a=true"), Kind::BoolValue(true));
        for text in ["infinity", "nan", "1.2.3", "", "x=y", "01234", "+1"] {
            assert_eq!(kind(&format!("a={text}")), Kind::StringValue(text.to_owned()));
        }
        assert_eq!(kind("a:string=12"), Kind::StringValue("12".to_owned()));
        assert_eq!(kind("a:double=1"), Kind::DoubleValue(1.0));
        assert_eq!(kind("a:bytes=00ff"), Kind::BytesValue(vec![0, 255].into()));
        for wrong in ["a", "a:int=x", "a:bytes=0", "a:bytes=zz", "a:bytes=+1", "a:date=1"] {
            assert!(wrong.parse::<Field>().is_err(), "{wrong}");
        }
        assert_eq!("n=-3".parse(), Ok(Sum { name: "n".to_owned(), by: -3 }));
        assert!("n=x".parse::<Sum>().is_err());
    }
}
