//! Configuration: a TOML file, then environment and flags (which `clap` reads, both as options of its own), the later winning.
//! Everything that is wrong is reported at once.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration that can't be used: every reason, one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, each naming the setting.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration can't be used:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Gathers what is wrong with a configuration.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn add(&mut self, setting: &str, problem: impl fmt::Display) {
        self.0.push(format!("{setting}: {problem}"));
    }

    /// Adds one unless the setting is as it should be.
    pub fn check(&mut self, is_right: bool, setting: &str, rule: impl fmt::Display) {
        if !is_right {
            self.add(setting, rule);
        }
    }

    /// Takes over what another part found.
    pub fn merge<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|e| self.0.extend(e.problems)).ok()
    }

    /// The value of a setting, or a problem and nothing.
    pub fn value<T>(&mut self, setting: &str, given: Given<T>) -> Option<T> {
        given.0.map_err(|problem| self.add(setting, problem)).ok()
    }

    /// The value that wins: flag or environment, else the file's, else the default. A bad one is a problem, and the default stands in.
    pub fn pick<T>(&mut self, setting: &str, flag: Option<Given<T>>, file: Option<Given<T>>, default: T) -> T {
        self.pick_optional(setting, flag, file).unwrap_or(default)
    }

    /// As [`Problems::pick`], of a setting that may be absent.
    pub fn pick_optional<T>(&mut self, setting: &str, flag: Option<Given<T>>, file: Option<Given<T>>) -> Option<T> {
        flag.or(file).and_then(|given| self.value(setting, given))
    }

    /// As [`Problems::pick`], of a setting that must be given.
    pub fn require<T>(&mut self, setting: &str, flag: Option<Given<T>>, file: Option<Given<T>>) -> Option<T> {
        match flag.or(file) {
            Some(given) => self.value(setting, given),
            None => {
                self.add(setting, "must be given");
                None
            }
        }
    }

    /// An error if there are any. Whatever [`Problems::value`] could not give is then not used.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.0 }) }
    }
}

/// A setting as it was given: right or wrong, to be judged together with all the others. `clap` and `serde` read it from text
/// (`serde` also from numbers and booleans) and never fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<T>(Result<T, String>);

impl<T> Given<T> {
    /// The value, or what is wrong with it.
    pub fn get(self) -> Result<T, String> {
        self.0
    }
}

impl<T> From<T> for Given<T> {
    fn from(value: T) -> Self {
        Self(Ok(value))
    }
}

impl<T: FromStr<Err: fmt::Display>> FromStr for Given<T> {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse().map_err(|e: T::Err| describe(text, &e.to_string()))))
    }
}

/// An error that names what was given.
fn describe(text: &str, error: &str) -> String {
    if error.contains(text) && !text.is_empty() { error.to_owned() } else { format!("{text:?}: {error}") }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Given<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text, a number or a boolean")]
        enum Scalar {
            Bool(bool),
            Integer(i64),
            Float(f64),
            Text(String),
        }
        let text = match Scalar::deserialize(from)? {
            Scalar::Bool(b) => b.to_string(),
            Scalar::Integer(n) => n.to_string(),
            Scalar::Float(n) => n.to_string(),
            Scalar::Text(text) => text,
        };
        Ok(text.parse().unwrap_or_else(|never| match never {}))
    }
}

/// Reads a file of settings; the default without a file. `T` should be `#[serde(default, deny_unknown_fields)]` throughout: then
/// every unknown key and every value of the wrong kind is reported, with its line.
pub fn load<T: DeserializeOwned + Default>(file: Option<&Path>) -> Result<T, ConfigError> {
    let Some(path) = file else { return Ok(T::default()) };
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => parse(&name, &text),
        Err(error) => Err(ConfigError { problems: vec![format!("{name}: can't be read: {error}")] }),
    }
}

/// As [`load`], of text that came from the named place.
pub fn parse<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, ConfigError> {
    let line =
        |span: Option<Range<usize>>| span.map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
    let problem = |error: &toml::de::Error, key: &str| {
        let line = line(error.span());
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{name}:{line}: {key}{colon}{}", error.message().replace('\n', " "))
    };
    let (table, mut errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        errors.sort_by_key(|e| e.span().map(|s| s.start));
        return Err(ConfigError { problems: errors.iter().map(|e| problem(e, "")).collect() });
    }
    let (whole, mut table) = (table.span(), table.into_inner());
    let mut problems = Vec::new();
    loop {
        // serde stops at the first error, so what it stopped at is taken out and the rest is read again.
        match T::deserialize(toml::Deserializer::from(Spanned::new(whole.clone(), table.clone()))) {
            Ok(settings) if problems.is_empty() => return Ok(settings),
            Ok(_) => break,
            Err(error) => {
                let key = error.span().and_then(|span| take_out(&mut table, &span));
                problems.push(problem(&error, key.as_deref().unwrap_or_default()));
                if key.is_none() {
                    break;
                }
            }
        }
    }
    Err(ConfigError { problems })
}

/// Removes the innermost entry whose key or value the span lies in, and gives its dotted name.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let within = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && let Some(name) = take_out(inner, span)
        {
            return Some(format!("{}.{name}", key.get_ref()));
        }
    }
    let key =
        table.iter().find(|(key, value)| within(key.span()) || within(value.span())).map(|(key, _)| key.clone())?;
    table.remove(&key);
    Some(key.get_ref().to_string())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::units::{ByteSize, HumanDuration};

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct File {
        listen: Option<Given<SocketAddr>>,
        workers: Option<u16>,
        cache: Cache,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Cache {
        size: Option<ByteSize>,
        idle: Option<HumanDuration>,
    }

    #[test]
    fn a_right_file_is_read() {
        let file: File = parse("x", "listen = '127.0.0.1:1'\n[cache]\nsize = '1KiB'\nidle = '2s'\n").unwrap();
        assert_eq!(file.cache, Cache { size: Some(ByteSize(1024)), idle: Some("2s".parse().unwrap()) });
        assert_eq!(file.listen.unwrap().get().unwrap().port(), 1);
        assert_eq!(load::<File>(None).unwrap(), File::default());
    }

    #[test]
    fn every_bad_key_and_value_of_a_file_is_reported_at_once() {
        let text = "lisen = 'x'\nworkers = -3\n[cache]\nsize = 'lots'\nidle = 5\nsise = 1\n";
        let error = parse::<File>("t.toml", text).unwrap_err();
        let expected = [
            ("t.toml:1: lisen", "unknown field"),
            ("t.toml:2: workers", "-3"),
            ("t.toml:4: cache.size", "\"lots\" is not a size"),
            ("t.toml:5: cache.idle", "5 needs a unit"),
            ("t.toml:6: cache.sise", "unknown field"),
        ];
        assert_eq!(error.problems.len(), expected.len(), "{error}");
        for (start, part) in expected {
            assert!(
                error.problems.iter().any(|p| p.starts_with(start) && p.contains(part)),
                "{start}, {part} in {error}"
            );
        }
        let error = parse::<File>("t.toml", "a = \nb = = 2\n").unwrap_err();
        assert!(error.problems.len() >= 2 && error.problems[0].starts_with("t.toml:1"), "{error}");
        let error = load::<File>(Some(Path::new("/does/not/exist"))).unwrap_err();
        assert!(error.to_string().contains("/does/not/exist: can't be read"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file_and_all_bad_values_are_gathered() {
        let given = |text: &str| Some(text.parse::<Given<u16>>().unwrap());
        let mut problems = Problems::new();
        assert_eq!(problems.pick("port", given("1"), given("2"), 3), 1);
        assert_eq!(problems.pick("port", None, given("2"), 3), 2);
        assert_eq!(problems.pick("port", None, None, 3), 3);
        // A bad value that is not used does no harm.
        assert_eq!(problems.pick("port", given("1"), given("x"), 3), 1);
        assert_eq!(problems.pick("low", given("x"), None, 3), 3);
        assert_eq!(problems.require::<u16>("name", None, None), None);
        problems.check(1 < 0, "high", "must be above low");
        let error = problems.finish().unwrap_err();
        let text = "the configuration can't be used:\n  low: \"x\": invalid digit found in string\n  name: must be given\n  high: must be above low";
        assert_eq!(error.to_string(), text);
        assert!(Problems::new().finish().is_ok());
    }
}
