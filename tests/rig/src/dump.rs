//! Reads the logs and the tables out of the databases.

use anyhow::{Context as _, Result, ensure};
use tao_harness::Postgres;
use tao_model::{AssocRef, ObjectId, TypeId};
use tao_proto::convert;

use crate::check::{AssocRow, CommitRow, CountRow, ObjectRow, Replay, Tables};
use crate::cluster::DATABASE;

/// The version byte of the column `data`.
const DATA_VERSION: u8 = 1;

/// Takes a database's whole log in.
pub fn read_log(database: &Postgres, log: usize, replay: &mut Replay) -> Result<()> {
    let query = "SELECT epoch, first_lsn, last_lsn, encode(payload, 'hex') FROM change_log ORDER BY epoch, first_lsn";
    database.rows(DATABASE, query, |row| {
        let mut columns = Columns::of(row);
        let (epoch, first, last) = (columns.number()?, columns.number()?, columns.number()?);
        let changes = convert::decode_log(&columns.bytes()?)?;
        replay.commit(log, &CommitRow { epoch, first, last, changes });
        Ok(())
    })
}

/// Reads a database's tables.
pub fn read_tables(database: &Postgres) -> Result<Tables> {
    let mut tables = Tables::default();
    let query = "SELECT id, otype, version, created_ms, updated_ms, encode(data, 'hex') FROM objects";
    database.rows(DATABASE, query, |row| {
        let mut columns = Columns::of(row);
        tables.objects.push(ObjectRow {
            id: columns.id()?,
            otype: TypeId(columns.number()?),
            version: columns.number()?,
            created_ms: columns.number()?,
            updated_ms: columns.number()?,
            data: columns.data()?,
        });
        Ok(())
    })?;
    database.rows(DATABASE, "SELECT id1, atype, id2, time, encode(data, 'hex') FROM assocs", |row| {
        let mut columns = Columns::of(row);
        let edge = AssocRef { id1: columns.id()?, atype: TypeId(columns.number()?), id2: columns.id()? };
        tables.assocs.push(AssocRow { edge, time: columns.number()?, data: columns.data()? });
        Ok(())
    })?;
    database.rows(DATABASE, "SELECT id1, atype, count, lsn FROM assoc_counts", |row| {
        let mut columns = Columns::of(row);
        let (id1, atype) = (columns.id()?, TypeId(columns.number()?));
        tables.counts.push(CountRow { id1, atype, count: columns.number()?, lsn: columns.number()? });
        Ok(())
    })?;
    tables.head = database.execute(DATABASE, "SELECT lsn FROM log_head")?.parse()?;
    tables.intents = database.execute(DATABASE, "SELECT count(*) FROM intents")?.parse()?;
    Ok(tables)
}

/// The columns of one row.
struct Columns<'a>(std::str::Split<'a, char>);

impl<'a> Columns<'a> {
    fn of(row: &'a str) -> Self {
        Self(row.split('\t'))
    }

    fn next(&mut self) -> Result<&'a str> {
        self.0.next().context("a row has too few columns")
    }

    fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(&mut self) -> Result<T> {
        let text = self.next()?;
        text.parse().with_context(|| format!("{text:?} is no number"))
    }

    fn id(&mut self) -> Result<ObjectId> {
        ObjectId::new(self.number()?).context("an id that is not positive")
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let text = self.next()?.as_bytes();
        let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
        text.chunks(2).map(byte).collect::<Option<Vec<u8>>>().context("no hexadecimal bytes")
    }

    fn data(&mut self) -> Result<Vec<u8>> {
        let mut bytes = self.bytes()?;
        ensure!(bytes.first() == Some(&DATA_VERSION), "data of another version");
        bytes.remove(0);
        Ok(bytes)
    }
}
