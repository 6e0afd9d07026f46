//! The text of a statement: other blanks, placeholders, and damage.

use sea_orm::sea_query::Value;

use super::terms::{BLANK, BOUND, Writer};
use crate::world::Sql;

/// Words that may change what those around them mean.
const STRAY: &[&str] = &[
    "NOT",
    "AND",
    "OR",
    "IS",
    "NULL",
    "TRUE",
    "IN",
    "(1)",
    "(",
    ")",
    "=",
    "<",
    "-",
    "~",
    "!",
    "+ 1",
    "* 0",
    ",",
    ";",
    "AS",
    "t",
    "t.",
    ".",
    "*",
    "city",
    "word",
    "FROM",
    "SET",
    "WHERE",
    "USING",
    "JOIN",
    "ON",
    "LEFT",
    "LIMIT 1",
    "ORDER BY 1",
    "RETURNING *",
    "SELECT",
    "VALUES",
    "UPDATE",
    "DELETE",
    "INSERT",
    "INTO",
    "ONLY",
    "DEFAULT",
    "UNION",
    "CASE",
    "END",
    "BETWEEN 1 AND",
    "LIKE",
    "COLLATE",
    "BINARY",
    "XOR",
    "DIV",
    "||",
    "&&",
    "::text",
    "::int",
    "''",
    "'a'",
    "1",
    "0x1",
    "--",
    "/*",
    "*/",
    "/*!",
    "#",
    "$$",
    "\\",
    "\"",
    "`",
    "[",
    "]",
    "IGNORE",
    "INDEXED BY x",
    "NOT INDEXED",
    "FORCE",
    "PARTITION",
    "FOR",
    "WITH",
    "EXPLAIN",
    "ANALYZE",
    "CROSS JOIN tag",
    "NATURAL JOIN tag",
    ", tag",
    "OFFSET",
    "EXISTS",
];

/// The text of a statement.
impl Writer {
    /// With other blanks and comments between the words.
    pub fn decorated(&mut self, text: &str) -> String {
        let often = self.pick(&[0, 0, 4, 12]);
        let mut out = String::new();
        if self.one_in(20) {
            out.push_str("/* a ; ' */ ");
        }
        for letter in text.chars() {
            match letter {
                ' ' if often > 0 && self.one_in(often) => out.push_str(self.blank()),
                BLANK => out.push(' '),
                letter => out.push(letter),
            }
        }
        if self.one_in(20) {
            out.push_str(" -- UPDATE\n");
        }
        out
    }

    fn blank(&mut self) -> &'static str {
        let comments: &[&str] = match self.sql {
            Sql::Postgres => &["/* /* ' */ \" */", "\r\n", " -- '\r", "/*$$*/"],
            Sql::MariaDb => &[" # it's\n", " -- \"\n", "/*`*/", "/* /* */"],
            Sql::Sqlite => &["/* /* */", " --x\n", "/*'*/", " \u{feff}"],
        };
        let plain = &["  ", "\n", "\t", " /**/ ", "/* WHERE id = 1 */", " -- ;\n"];
        match self.one_in(2) {
            true => self.pick(comments),
            false => self.pick(plain),
        }
    }

    /// With placeholders, and the values in their order.
    pub fn numbered(&mut self, text: &str) -> (String, Vec<Value>) {
        let (mut out, mut values) = (String::new(), Vec::new());
        let numbers = self.is(Sql::Sqlite) && self.one_in(4);
        for (at, piece) in text.split(BOUND).enumerate() {
            if at % 2 == 0 {
                out.push_str(piece);
                continue;
            }
            let position: usize = piece.parse().expect("a position");
            values.push(self.values[position].clone());
            match self.sql {
                Sql::Postgres => out.push_str(&format!("${}", values.len())),
                _ if numbers => out.push_str(&format!("?{}", values.len())),
                _ => out.push('?'),
            }
        }
        (out, values)
    }

    /// With a few words other than they were.
    pub fn shuffled(&mut self, text: &str) -> String {
        let mut words: Vec<&str> = text.split(' ').collect();
        for _ in 0..1 + self.rng.usize(..2) {
            let at = self.rng.usize(..words.len());
            let to = self.rng.usize(..words.len());
            match self.rng.usize(..5) {
                0 => words.swap(at, to),
                1 if words.len() > 1 => drop(words.remove(at)),
                2 => words.insert(to, words[at]),
                _ => words.insert(at, self.pick(STRAY)),
            }
        }
        words.join(" ")
    }

    /// With a few bytes other than they were.
    pub fn damaged(&mut self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + self.rng.usize(..3) {
            let at = self.rng.usize(..bytes.len());
            let end = (at + 1 + self.rng.usize(..6)).min(bytes.len());
            match self.rng.usize(..6) {
                0 => bytes[at] ^= 0x20,
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.rng.usize(..=bytes.len());
                    bytes.splice(to..to, piece);
                }
                3 => bytes[at] ^= 1 << self.rng.usize(..7),
                _ => bytes.insert(at, self.pick(b"'\"`()[];,.=-/*#?$\\ \n0123ae@:|!_%&<>")),
            }
            if bytes.is_empty() {
                break;
            }
        }
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }
}
