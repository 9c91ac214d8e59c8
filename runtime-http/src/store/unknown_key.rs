//! What somebody meant by a key that no table has: the nearest of those that there are, in whichever table.

use std::fmt::Write;

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor, value},
    forward_to_deserialize_any,
};

/// From here on two keys are similar: as clap has it for flags, so that both propose the same.
const SIMILAR: f64 = 0.7;
const PART: f64 = 0.9;
/// More than that many proposals would only hide the first.
const MOST: usize = 3;

/// A table of a file, and the keys that it may have.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Empty: the file itself, above all tables.
    table: &'static str,
    keys: &'static [&'static str],
}

impl Keys {
    /// Of the struct that the table is read as.
    pub fn of<'de, T: Deserialize<'de>>(table: &'static str) -> Keys {
        let mut keys: &'static [&'static str] = &[];
        // It names its fields, and is given nothing.
        let _ = T::deserialize(Fields(&mut keys));
        Keys { table, keys }
    }

    /// The tables of that name in a file: one, or several in an array.
    fn within<'a>(&self, file: &'a toml::Table) -> Vec<&'a toml::Table> {
        match file.get(self.table) {
            _ if self.table.is_empty() => vec![file],
            Some(toml::Value::Table(table)) => vec![table],
            Some(toml::Value::Array(tables)) => tables.iter().filter_map(toml::Value::as_table).collect(),
            Some(_) | None => Vec::new(),
        }
    }
}

/// For each key of `text` that its table does not have, what may have been meant; empty, if nothing is similar or the text is no TOML.
pub fn proposals(text: &str, tables: &[Keys]) -> String {
    let Ok(file) = text.parse::<toml::Table>() else { return String::new() };
    let unknown = tables.iter().flat_map(|table| {
        let keys = table.within(&file).into_iter().flat_map(toml::Table::keys);
        keys.filter(|key| !table.keys.contains(&key.as_str())).map(move |key| (table, key))
    });
    let mut proposals = String::new();
    for (table, key) in unknown.take(MOST) {
        if let Some((meant, of)) = nearest(key, table, tables) {
            let place = match of.table {
                same if same == table.table => String::new(),
                "" => ", above all tables".to_owned(),
                other => format!(" of [{other}]"),
            };
            // Writing to a string does not fail.
            let _ = write!(proposals, "; `{key}`: did you mean `{meant}`{place}?");
        }
    }
    proposals
}

/// The most similar one; of equals, that of the same table, else the first.
fn nearest(key: &str, table: &Keys, tables: &[Keys]) -> Option<(&'static str, Keys)> {
    let others = tables.iter().filter(|other| other.table != table.table);
    let all = std::iter::once(table).chain(others).flat_map(|table| table.keys.iter().map(|known| (*known, *table)));
    let similar = all.map(|known| (similarity(key, known.0), known)).filter(|(similarity, _)| *similarity > SIMILAR);
    let best = similar.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, known)| known)
}

/// A part of a name is like a misspelt one: `timeout` for `invocation-timeout`.
fn similarity(key: &str, known: &str) -> f64 {
    let jaro = strsim::jaro(key, known);
    if known.split('-').any(|part| part == key) { jaro.max(PART) } else { jaro }
}

/// Takes note of the fields that a struct asks for.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("only a struct has fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    #[allow(dead_code, reason = "only its fields' names are read")]
    struct File {
        limits: u8,
        output_mode: u8,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its fields' names are read")]
    struct Limits {
        memory: u8,
        time: u8,
    }

    #[test]
    fn the_nearest_key_of_the_right_table() {
        let tables = [Keys::of::<File>(""), Keys::of::<Limits>("limits"), Keys::of::<Limits>("caps")];
        for (text, meant) in [
            ("output_mode = 1", "; `output_mode`: did you mean `output-mode`?"),
            ("memroy = 1", "; `memroy`: did you mean `memory` of [limits]?"),
            ("[caps]\ntimes = 1", "; `times`: did you mean `time`?"),
            ("[[caps]]\n[[caps]]\ntimes = 1", "; `times`: did you mean `time`?"),
            ("[limits]\noutput-mode = 1", "; `output-mode`: did you mean `output-mode`, above all tables?"),
            ("[limit]\nmemory = 1", "; `limit`: did you mean `limits`?"),
            ("mode = 1", "; `mode`: did you mean `output-mode`?"),
            ("qqq = 1", ""),
            ("limits = 1\noutput-mode = 1", ""),
            ("limits = ", ""),
        ] {
            assert_eq!(proposals(text, &tables), meant, "{text}");
        }
        let many: String = (0..9).map(|number| format!("memory{number} = 1\n")).collect();
        assert_eq!(proposals(&many, &tables).matches("did you mean").count(), MOST);
    }
}
